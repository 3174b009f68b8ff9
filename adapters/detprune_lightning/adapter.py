"""What detprune finds under the name ``lightning``: hooks for a framework, and no task of its own."""

from detprune.run.adapter import Adapter

adapter = Adapter(
    line="callbacks that prune any LightningModule while Lightning trains it",
    requires=("lightning",),
)
