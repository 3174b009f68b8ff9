"""What ``detprune list`` says about classifiers."""

from collections.abc import Mapping


def list_models() -> Mapping[str, str]:
    """The networks by name."""
    from detprune_classification import models  # torchvision, which nothing else here needs

    return models.list_models()


def list_data() -> Mapping[str, str]:
    """The data sets by name."""
    from detprune_classification import data

    return data.list_data()
