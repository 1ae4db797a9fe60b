"""What is wrong with the files of a data set."""


class DataError(ValueError):
    """A defect in a data file, with the place where it was found.

    Args:
      file: the annotation file or image.
      expected: what should stand there.
      got: what stands there; long values are shortened.
      video: the video, by id or name.
      annotation: the id of the annotation.
      field: the field, for example `segmentations[3].counts`.
    """

    def __init__(
        self,
        file: object,
        *,
        expected: str,
        got: object,
        video: object = None,
        annotation: object = None,
        field: str | None = None,
    ):
        self.file, self.video, self.annotation = file, video, annotation
        self.field, self.expected, self.got = field, expected, got
        place = [str(file)]
        if video is not None:
            place.append(f"video {shorten(video)}")
        if annotation is not None:
            place.append(f"annotation {shorten(annotation)}")
        if field is not None:
            place.append(field)
        super().__init__(f"{', '.join(place)}: expected {expected}, got {shorten(got)}")


def shorten(value: object, limit: int = 120) -> str:
    """Text of a value, cut in the middle if long."""
    text = value if isinstance(value, str) else repr(value)
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]} .. {text[-limit // 4 :]}"
