"""A `multipart/form-data` body as its fields and its one file, which is not copied."""

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from argosy.fleet.batches import Upload
from argosy.gateway.surfaces.decode import refused

_FIELD_BYTES_MAX = 1024


class Form(msgspec.Struct, kw_only=True):
    """What was sent."""

    fields: dict[str, str] = {}
    file: Upload | None = None


def read_form(body: bytes, content_type: bytes) -> Form:
    """Raises `RefusedError` when it is no form, or cut."""
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        said = content_type.decode("latin-1")[:100] or "nothing"
        message = f"Send the file as multipart/form-data with a boundary; content-type says {said}."
        raise refused("bad_request", message)
    reader = _Reader(body)
    try:
        parser = MultipartParser(boundary, reader.callbacks())  # type: ignore[arg-type]
        # All at once: offsets are then the body's own, and the file can be a view of it.
        parser.write(body)
    except FormParserError as error:
        raise refused(
            "bad_request", f"The body is not valid multipart/form-data: {error}."
        ) from None
    if not reader.is_whole:
        raise refused("bad_request", "The form is cut: its last boundary is missing.")
    return reader.form


class _Reader:
    """Turns the parser's calls, which carry offsets, into a form."""

    def __init__(self, body: bytes) -> None:
        self.form = Form()
        self.is_whole = False
        self._body = body
        self._begin()

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_part_data": self._on_data,
            "on_part_end": self._on_end,
            "on_header_field": self._on_name,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header,
            "on_end": self._on_all,
        }

    def _begin(self) -> None:
        self._name = self._value = b""
        self._disposition = b""
        self._start: int | None = None
        self._stop = 0

    def _on_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name = self._value = b""

    def _on_data(self, _: bytes, start: int, end: int) -> None:
        if self._start is None:
            self._start = start
        self._stop = end

    def _on_end(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        content = memoryview(self._body)[self._start or 0 : self._stop]
        if b"filename" in options:
            self._take_file(name, options[b"filename"], content)
            return
        if content.nbytes > _FIELD_BYTES_MAX:
            message = f"'{name[:100]}' is over {_FIELD_BYTES_MAX} bytes; is it meant as a file?"
            raise refused("bad_request", message, param=name[:100])
        self.form.fields[name] = bytes(content).decode("utf-8", "replace")

    def _take_file(self, name: str, filename: bytes, content: memoryview) -> None:
        if name != "file" or self.form.file is not None:
            message = f"One file is wanted, named 'file'; there is one more, named '{name[:100]}'."
            raise refused("bad_request", message, param=name[:100])
        text = filename.decode("utf-8", "replace").replace("\0", "")[:255]
        self.form.file = Upload(filename=text or "upload.jsonl", content=content)

    def _on_all(self) -> None:
        self.is_whole = True
