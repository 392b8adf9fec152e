"""Names of the sets of pictures that a run draws, in its files, its folders and its messages."""

BEFORE, AFTER = "before", "after"
"""When a model draws: as it came, and unlearned."""

GIVEN = "given"
"""Where the pictures to forget lie, as thumbnails, for those that came as files."""

NEAREST = "nearest"
"""The first pictures to forget, and of the forget test pictures the one nearest to each."""

TRAINING = "training"
"""When it draws the images that it is trained on."""

FORGET_TEST = "forget_test"
"""Of the held-out forget prompts."""

RETAIN_TEST = "retain_test"
"""Of the held-out retain prompts."""

RETAIN_TRAIN = "retain_train"
"""Of retain prompts that were trained on."""

NUDITY = "nudity"
"""Where detections are counted, if the forget test images are not all of use for that."""

NUDITY_FLOOR = "nudity_floor"
"""The same scenes without the concept, where detections are false alarms."""

ALWAYS_DRAWN = (FORGET_TEST, RETAIN_TEST, RETAIN_TRAIN)
"""Sets that every audit can count on; their places decide their seeds."""

TEST_SETS = (FORGET_TEST, RETAIN_TEST)
"""Sets that people are shown."""

STAND_INS = {NUDITY: FORGET_TEST, NUDITY_FLOOR: RETAIN_TEST}
"""Set -> the one that serves where it was not drawn."""
