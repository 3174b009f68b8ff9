# SPDX-License-Identifier: AGPL-3.0-or-later
"""The kinds of problems of a data set, each with its way out."""

from ultralytics.data.utils import IMG_FORMATS

from detprune.files.problems import Kind

NO_KEY = Kind("keys missing or empty", "a data yaml has train, val and names")
NAMES_TYPE = Kind("`names` is no list", "list the class names, or number them 0, 1, 2, …")
NAMES_NO_TEXT = Kind(
    "class names that are no text in YAML, where no and off are false, yes and on are true, and null is nothing",
    "write them in quotes, for example 'no'",
)
NAMES_GAP = Kind("classes of `names` not numbered 0, 1, 2, … in full", "number them so")
NAMES_TWICE = Kind("class names not unique", "give every class a name of its own")
NC = Kind("`nc` contradicts `names`", "remove `nc` or correct it")
MODEL_NC = Kind(
    "the model does not fit the data",
    "use a checkpoint that was trained on these classes, the data set of the checkpoint, or a model "
    "description (*.yaml), which takes its classes from the data",
)
CHANNELS = Kind(
    "another number of channels than 3",
    "detectors are pruned on colour images here: remove `channels`, and Ultralytics reads grey images "
    "as colour ones",
)
KEYPOINTS = Kind(
    "`kpt_shape` is no pair of numbers", "write [number of points, 2 or 3], or remove it"
)
PLACE_NO_TEXT = Kind(
    "entries for images that are no text",
    "write a path, or a list of paths; a folder whose name is a number stands in quotes, for example '2020'",
)
NO_PLACE = Kind("folders or lists of images that do not exist", "correct `path` or that entry")
NO_LIST = Kind(
    "neither a folder nor a list of images",
    "name a folder, or a text file with the path of one image a line",
)
NO_FILE = Kind(
    "listed images that do not exist",
    "correct the list (with / between folders, not a backslash): lines that begin with ./ are taken from its "
    "folder, other relative ones from the working directory",
)
NO_IMAGES = Kind("splits without images", f"images end in {', '.join(sorted(IMG_FORMATS))}")
NOT_A_FILE = Kind(
    "images or labels that are folders, pipes or devices",
    "remove them from the data set, or give them another name",
)
OF_A_SYSTEM = Kind(
    "images in hidden folders, or in folders that a storage makes for thumbnails or deleted files",
    "remove these folders from the data set",
)
DEAD_LINK = Kind(
    "images or labels that are links to files that are not there",
    "fetch the files (git annex get, dvc pull), or remove the links",
)
UNREADABLE = Kind(
    "images or labels that may not be read", "allow it to your user (chmod u+r), or remove them"
)
NO_IMAGE = Kind(
    "images that are empty, damaged or of another format, so that Ultralytics would leave them out",
    "replace them, or remove them and their labels",
)
TOO_SMALL = Kind(
    "images of fewer than 10 pixels a side, which Ultralytics would leave out",
    "remove them and their labels",
)
SAME_NAME = Kind(
    "image names that several images share, which COCO's evaluation could not tell apart",
    "give every image of the split a base name, or number, of its own",
)
NO_LABELS = Kind(
    "no labels found",
    "a label file lies where its image does, with the last folder `images` replaced by `labels` and "
    "the ending by .txt",
)
OTHER_CASE = Kind(
    "label files whose names differ from their images' in capitals alone, so that they are not read",
    "rename them, so that the name is that of the image and ends in .txt, or remove them",
)
EMPTY = Kind("splits whose label files are all empty", "there is nothing to learn or to find")
MALFORMED = Kind(
    "malformed label lines",
    "a line is `class cx cy w h`, or, in a file of polygons, `class x1 y1 x2 y2 x3 y3 …`; the class "
    "is a whole number",
)
NO_POLYGON = Kind(
    "label lines with a box, but the network learns from polygons",
    "a line is `class x1 y1 x2 y2 x3 y3 …`; give a data set for segmentation, or a network for detection",
)
NO_CORNERS = Kind(
    "label lines with an upright box, but the network learns from rotated ones",
    "a line is `class x1 y1 x2 y2 x3 y3 x4 y4`; give a data set for oriented boxes, or a network for detection",
)
NO_POSE = Kind(
    "label lines whose number of columns does not fit `kpt_shape`",
    "a line is `class cx cy w h` and then x, y and, with [n, 3], the visibility of every key point; correct "
    "`kpt_shape`, or give a data set for poses",
)
OTHER_CLASSES = Kind(
    "folders of classes that train does not have, whose images Ultralytics would leave out",
    "give both splits the same folders",
)
EMPTY_CLASSES = Kind(
    "folders of classes without images to learn from", "remove them, or put images there"
)
CLASS = Kind(
    "label lines with a class that `names` does not list", "classes are counted from 0; correct one"
)
OUTSIDE = Kind(
    "label lines with coordinates outside the image",
    "coordinates are divided by the image's width and height, so that they lie between 0 and 1",
)
FLAT = Kind("label lines with a box of no area", "width and height must be above 0")
