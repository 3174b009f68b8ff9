from .contents import check_output_path as check_output_path
from .contents import check_regular as check_regular
from .contents import check_replaceable as check_replaceable
from .contents import file_digest as file_digest
from .contents import named_path as named_path
from .contents import read_bytes as read_bytes
from .contents import read_json as read_json
from .contents import read_text as read_text
from .contents import utf8 as utf8
from .packed import is_plain_pickle as is_plain_pickle
from .packed import refuse_packed as refuse_packed
from .tensors import check_archive as check_archive
from .tensors import load_tensors as load_tensors
from .tensors import machine_memory as machine_memory
from .weights import safe_load as safe_load
from .yaml import dump_yaml_line as dump_yaml_line
from .yaml import dump_yaml_text as dump_yaml_text
from .yaml import load_yaml as load_yaml
from .yaml import parse_yaml as parse_yaml

__all__: list[str]
