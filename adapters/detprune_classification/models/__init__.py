"""Networks for classification: CIFAR ResNets and variants, and all of torchvision's by name."""

from .checkpoints import load_checkpoint
from .registry import MODELS, ModelSpec, build_model, check_model_name, list_models

__all__ = [
    "MODELS",
    "ModelSpec",
    "build_model",
    "check_model_name",
    "list_models",
    "load_checkpoint",
]
