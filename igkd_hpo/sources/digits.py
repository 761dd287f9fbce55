"""The handwritten digits that come with scikit-learn."""

from igkd_hpo.sources import Found, Images, Published, Source, Workplace


def _read(place: Workplace) -> Images:
    import numpy as np
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)  # the file's values are 0 to 16
    labels = digits.target.astype(np.int64)
    return Images(
        images=np.repeat(grey[:, None], 3, axis=1),
        labels=labels,
        n_train=len(labels),
        class_names=tuple(str(name) for name in digits.target_names),
    )


SOURCE = Source(
    help="1,797 real 8x8 digits in scikit-learn",
    root="unused",
    about_root="digits comes with scikit-learn",
    find=lambda root, image_size: Found(own_test=False, read=_read),
    published=Published(images=1797, side=8, classes=10),
)
