"""Names and descriptions for ``detprune list``: models and data sets of classification. Imports nothing heavy."""

from collections.abc import Mapping

TORCHVISION = "torchvision:"
"""Optional prefix of the name of a torchvision model."""

MODELS = {
    "cifar_resnet20": "ResNet-20, option-A shortcuts, 0.27M weights; images of 8 px or more",
    "cifar_resnet32": "ResNet-32, option-A shortcuts, 0.46M weights; images of 8 px or more",
    "cifar_resnet44": "ResNet-44, option-A shortcuts, 0.66M weights; images of 8 px or more",
    "cifar_resnet56": "ResNet-56, option-A shortcuts, 0.85M weights; images of 8 px or more",
    "cifar_resnet110": "ResNet-110, option-A shortcuts, 1.7M weights; images of 8 px or more",
    "cifar_resnet18": "ResNet-18 with a 3×3 stem and no max-pool, 11.2M weights; for 32×32 images",
    "cifar_resnet50": "ResNet-50 with a 3×3 stem and no max-pool, 23.5M weights; for 32×32 images",
    "cifar_vgg16": "VGG-16 with batch norm and one linear layer, 14.7M weights; images of 32 px or more",
    "cifar_mobilenet_v2": "MobileNetV2 with its first two strides 1, 2.2M weights; for 32×32 images",
    "cifar_mobilenet_v3_small": "MobileNetV3-Small with its first two strides 1, 1.5M weights; for 32×32 images",
    "cifar_mobilenet_v3_large": "MobileNetV3-Large with its first two strides 1, 4.2M weights; for 32×32 images",
}

DATA_SETS = {
    "digits": "scikit-learn's 1,797 handwritten digits, 8×8 grey, 10 classes; needs no files",
    "cifar10": "CIFAR-10's original files in root/cifar-10-batches-py, 32×32, 10 classes",
    "image_folder": "any images as root/train/<class>/* and root/test/<class>/*, scaled to image_size",
}


def list_models() -> Mapping[str, str]:
    """All models by name; torchvision's share one entry, because listing them would import torchvision."""
    return {
        **MODELS,
        f"{TORCHVISION}<any>": "any of torchvision's classification models under its own name, with or without "
        f"{TORCHVISION!r} before it, for example resnet50; its ImageNet layout and weights",
    }


def list_data() -> Mapping[str, str]:
    """All data sets by name."""
    return DATA_SETS
