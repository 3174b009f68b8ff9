from .adapters import check_adapter as check_adapter
from .methods import check_method as check_method
from .sets import check_set as check_set

__all__: list[str]
