"""Networks for classification: CIFAR ResNets and variants, and all of torchvision's by name."""

from .checkpoints import load_checkpoint
from .registry import MODELS, build_model, check_model_name

__all__ = [
    "MODELS",
    "build_model",
    "check_model_name",
    "load_checkpoint",
]
