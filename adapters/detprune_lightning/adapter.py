"""The adapter ``lightning``: callbacks for a framework, without a task of its own."""

from detprune.run.adapter import Adapter

adapter = Adapter(
    line="callbacks that prune any LightningModule while Lightning trains it",
    requires=("lightning",),
)
