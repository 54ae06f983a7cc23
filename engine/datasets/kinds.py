"""Every kind of finding: what it is called, what it does to a training, what to do about it."""

from __future__ import annotations

from typing import NamedTuple


class Kind(NamedTuple):
    title: str
    effect: str
    remedy: str


UNKNOWN = Kind("Other", "See the message.", "See the message.")
LEFT_OUT = "The image is left out: it teaches and judges nothing."
READ_AS_IT_IS = "None, as long as it stays as it is."
NOT_THERE = "What it holds is missing from the data set."
SAVE_AGAIN = "Save the image again from its original, or delete it with its label."
MEND_LABEL = "Correct the annotation at the place named, then add the data set again."
LOST_OBJECT = "The object is left out; where it stands, training is taught that there is nothing."
SPLIT_AGAIN = "Move all copies into one split, or make the split anew with copies kept together."

KINDS: dict[str, Kind] = {
    # Images
    "corrupt_image": Kind("Damaged images", LEFT_OUT + " One found later stops a training.", SAVE_AGAIN),
    "empty_image": Kind("Empty image files", LEFT_OUT, SAVE_AGAIN),
    "missing_image": Kind("Images that are missing", LEFT_OUT, "Put the image back, or take it off the list."),
    "unreadable_image": Kind("Images that cannot be read", LEFT_OUT, "Check the file's rights."),
    "unsupported_image": Kind("Images of a form that training cannot decode", LEFT_OUT, "Save it as PNG of 8 or 16 bits."),
    "small_image": Kind("Images too small", LEFT_OUT, "Delete it, or take it at a larger size."),
    "large_image": Kind("Images too large", LEFT_OUT, "Cut it into tiles."),
    "bad_file_name": Kind("File names that are not UTF-8", LEFT_OUT, "Rename the file."),
    "odd_end": Kind("JPEGs with an odd end", READ_AS_IT_IS, "Save the image again if other programs complain."),
    "changed_image": Kind(
        "Images changed since they were registered",
        "Labels and counts may no longer belong to what is in the file.",
        "Add the data set again.",
    ),
    "blank_image": Kind(
        "Images of one colour",
        "They teach nothing; with boxes on them they teach to see what is not there.",
        "Look at them; delete what a camera or an export failed to record.",
    ),
    "dark_image": Kind(
        "Nearly black images",
        "Training sees next to nothing on them. 16-bit images keep their upper 8 bits only, which 10- or 12-bit "
        "cameras leave empty.",
        "Stretch their values to the full range, and save them with 8 bits.",
    ),
    "odd_image_shape": Kind(
        "Images of an extreme shape",
        "Fitted into a square, most of it is padding and what they show becomes small.",
        "Cut them into tiles, or train at a larger image size.",
    ),
    "mixed_sizes": Kind(
        "Images of very different sizes",
        "The same thing comes in sizes far apart, which is harder to learn; boxes on the largest shrink the most.",
        "Nothing if the model will meet the same mix; else bring them to a like scale.",
    ),
    # Labels
    "no_label": Kind(
        "Images without labels",
        "A YOLO set takes them for background: if there is something on them, it is taught not to see it. "
        "In other sets they are not used.",
        "Label them, or delete those that are not background.",
    ),
    "label_without_image": Kind("Labels without an image", "They are not used.", "Put the image back, or delete them."),
    "same_name": Kind("Files that claim the same partner", "One of the two is not used.", "Rename one of them."),
    "malformed": Kind("Labels that cannot be read", LOST_OBJECT, MEND_LABEL),
    "bad_class": Kind("Classes that are not in the list", LOST_OBJECT, "Correct the class, or add it to the list."),
    "out_of_range": Kind("Coordinates out of range", LOST_OBJECT, MEND_LABEL),
    "inverted": Kind("Boxes that end before they begin", LOST_OBJECT, MEND_LABEL),
    "zero_area": Kind("Boxes without area", LOST_OBJECT, "Draw the box anew, or delete it."),
    "out_of_frame": Kind(
        "Boxes out of the image",
        "What lies outside is cut off, or the object is left out: the box may be a different one than was meant.",
        "Check whether the image was cut or turned after it was labelled.",
    ),
    "size_mismatch": Kind(
        "Annotations made for another image size",
        "Every box on the image may be off its object.",
        "Label the image as it is now, or bring back the one that was labelled.",
    ),
    "duplicate": Kind("Boxes that are there twice", "The second is left out: none.", "Delete it."),
    "double_box": Kind(
        "Boxes almost twice",
        "One object counts as two: found once, the other is a miss; of two classes, one has to be wrong.",
        "Look at them; delete one.",
    ),
    "other_shape": Kind("Shapes that are no boxes", "They are not used.", "Draw boxes or polygons."),
    "crowd": Kind("Crowds", "They are not used: what they cover is background.", "Label what matters one by one."),
    "listed_twice": Kind("Images listed twice", "They are used once.", "Delete one of the entries."),
    "two_labels": Kind("Images with two labels", "Neither is believed, so they are not used.", "Decide for one."),
    "tiny_box": Kind(
        "Tiny boxes",
        "At the image size chosen they are smaller than a cell of the model's finest grid: hardly to be learnt, and "
        "they weigh on the loss.",
        "Train at a larger image size, cut images into tiles, or drop these objects.",
    ),
    "odd_box_shape": Kind(
        "Boxes of an extreme shape", "Usually a slip of the mouse, and hard to learn.", "Look at them; draw them anew."
    ),
    "whole_image_box": Kind(
        "Boxes as large as their image",
        "They teach to box whatever is there.",
        "Check them: maybe a default that an export put in.",
    ),
    "crowded_image": Kind(
        "Images with very many objects",
        "Evaluation counts no more than 300 detections an image: what is beyond can only be missed.",
        "Cut them into tiles.",
    ),
    # Splits
    "leak": Kind(
        "The same image in two splits",
        "It is learnt by heart and then asked for: results come out better than they are.",
        SPLIT_AGAIN,
    ),
    "leak_alike": Kind(
        "Nearly the same image in two splits",
        "Copies, other sizes, mirrored or next frames of a video are as good as learnt by heart: results come out "
        "better than they are.",
        SPLIT_AGAIN,
    ),
    "same_image": Kind(
        "The same image twice in a split", "It counts double, in training or in the result.", "Delete one of them."
    ),
    "contradiction": Kind(
        "The same image with different labels",
        "One says yes where the other says no: neither is learnt, and no result can be right on both.",
        "Decide for one of them and delete the other.",
    ),
    "in_two_splits": Kind(
        "Images listed in two splits", "They are used in the one that judges only.", "Take them off the other list."
    ),
    "class_not_in_train": Kind(
        "Classes that train does not show", "They cannot be learnt; what judges asks for them.", "Make the split anew."
    ),
    "class_not_judged": Kind(
        "Classes that a split cannot judge",
        "No result says how well they are found, and means over classes leave them out.",
        "Make the split anew, stratified, or add images.",
    ),
    "class_unused": Kind("Classes nobody used", "The model has an output that learns to stay silent.", "Take it off the list."),
    "class_few": Kind("Classes with few labels", "They are learnt badly, and by chance.", "Add images that show them."),
    "imbalance": Kind(
        "Classes far rarer than others",
        "The frequent classes dominate the loss; the rare ones are found less often.",
        "Add images of the rare ones, and judge by class instead of by the mean.",
    ),
    "small_split": Kind(
        "A split too small to judge by", "Its results move by points from chance alone.", "Give it a larger share."
    ),
    "split_without_objects": Kind("A split without objects", "Train and val were divided anew.", "Check the split's lists."),
    "too_few": Kind("Too few labelled images", "There is nothing to choose the best weights by.", "Label more images."),
    "test_is_val": Kind("Test repeats another split", "There is no test split.", "Give test images of its own."),
    "val_is_train": Kind("Val repeats train", "A split was made instead.", "Give val images of its own."),
    "missing_split": Kind("A split that is not there", NOT_THERE, "Correct the path in the data.yaml."),
    "bad_split": Kind("A split that is no folder or list", NOT_THERE, "Correct the path in the data.yaml."),
    "not_in_split": Kind("Images that are in no split", "They are not used.", "List them, or leave them out on purpose."),
    # Files
    "bad_list": Kind("Lists with other lines", "Those lines are not used.", "Check the list."),
    "outside_folder": Kind("Paths that lead out of the folder", LEFT_OUT, "Write the absolute path if that is meant."),
    "bad_xml": Kind("Annotations that are not XML", LEFT_OUT, MEND_LABEL),
    "unsafe_xml": Kind("Annotations that could do harm", LEFT_OUT, "Take the document type out of the XML."),
    "bad_json": Kind("Annotations that are not JSON", LEFT_OUT, MEND_LABEL),
    "bad_labelme": Kind("JSON files that are not labelme's", LEFT_OUT, MEND_LABEL),
    "bad_table": Kind("Tables that break off", NOT_THERE, "Correct the line named."),
    "bad_encoding": Kind("Files that are not UTF-8", LEFT_OUT, "Save the file as UTF-8."),
    "too_large": Kind("Files too large", LEFT_OUT, "Check what it is."),
    "unreadable": Kind("Files that cannot be read", LEFT_OUT, "Check the file's rights."),
    "unreadable_folder": Kind("Folders that cannot be read", NOT_THERE, "Check the folder's rights."),
    "many_defects": Kind("Files with very many defects", LOST_OBJECT, "Check whether it is an annotation at all."),
}  # fmt: skip


def kind(code: str) -> Kind:
    return KINDS.get(code, UNKNOWN)
