# SPDX-License-Identifier: AGPL-3.0-or-later
"""The adapter for the task ``yolo``."""

from detprune.run.adapter import Adapter, Implementation
from detprune_yolo.listing import list_data, list_models


def _implement() -> Implementation:
    from detprune_yolo.export.command import export_formats
    from detprune_yolo.first_recipe import first_recipe
    from detprune_yolo.recipe import DetectionRecipe
    from detprune_yolo.task import DetectionTask

    return Implementation(
        DetectionRecipe,
        DetectionTask,
        formats=export_formats(),
        int8=export_formats(int8=True),
        first_recipe=first_recipe,
    )


adapter = Adapter(
    line="YOLO networks of all tasks, trained by Ultralytics (AGPL-3.0)",
    requires=("ultralytics", "pycocotools", "cv2"),
    models=list_models,
    data_sets=list_data,
    implement=_implement,
)
