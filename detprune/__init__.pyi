from .budgets import Budget as Budget
from .channels import CoupledChannels as CoupledChannels
from .errors import DetpruneError as DetpruneError
from .errors import InputError as InputError
from .errors import NonFiniteError as NonFiniteError
from .methods import ADMM as ADMM
from .methods import DPF as DPF
from .methods import SASADMM as SASADMM
from .methods import SLR as SLR
from .methods import GradualMagnitude as GradualMagnitude
from .methods import Growth as Growth
from .methods import Magnitude as Magnitude
from .methods import Method as Method
from .methods import OneShot as OneShot
from .methods import OuterIteration as OuterIteration
from .methods import Pull as Pull
from .pruner import Pruner as Pruner
from .run.loading import load as load
from .sets import NM as NM
from .sets import Block as Block
from .sets import Channel as Channel
from .sets import Column as Column
from .sets import Filter as Filter
from .sets import Pattern as Pattern
from .sets import SparsitySet as SparsitySet
from .sets import Unstructured as Unstructured
from .summary import LayerSummary as LayerSummary
from .summary import Summary as Summary

__version__: str
__all__: list[str]
