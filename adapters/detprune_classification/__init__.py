"""Classification: CIFAR and torchvision networks, digits, CIFAR-10 and image folders."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
