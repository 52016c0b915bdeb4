"""What is sent: messages as chains have them, in the package's format and in the one that other systems would use."""

import json
import time

__all__ = ["DATA", "SUBJECT", "TYPES", "as_json", "as_message", "file_data", "moment_in", "split", "stamp"]

SUBJECT = "/1b/viirs/npp"
_SENDER = "satuser@host1.example.org"
_TIME = "2025-06-26T07:39:40.483302+00:00"
# Stands for the moment at which the message is sent, which `stamp` gives in as many characters.
_MOMENT = "t" + 19 * "0"
_PLACE = "/san1/polar/in/direct_readout/viirs_sdr/"


def file_data():
    """Return the data of a message of 1 KB about one file."""
    name = "SVM05_npp_d20250626_t0733320_e0734562_b70821_c20250626073940123456_cspp_dev.h5"
    return {
        "sensor": ["viirs"],
        "platform_name": "Suomi-NPP",
        "orig_platform_name": "npp",
        "orbit_number": 70821,
        "start_time": "2025-06-26T07:33:32.012345",
        "end_time": "2025-06-26T07:34:56.212345",
        "processing_time": "2025-06-26T07:39:38",
        "processing_level": "1B",
        "format": "SDR",
        "type": "HDF5",
        "data_processing_level": "1B",
        "antenna": "esoc-x-band-2",
        "variant": "DR",
        "station": "norrkoping",
        "nominal_time": "2025-06-26T07:33:30",
        "origin": "172.18.0.248:9093",
        "filesystem": {"cls": "fsspec.implementations.sftp:SFTPFileSystem", "protocol": "sftp", "args": []},
        "uri": "ssh://host1.example.org" + _PLACE + name,
        "path": _PLACE + name,
        "uid": name,
        "segment": 17,
        "is_complete": True,
        "sent": _MOMENT,
    }


def _dataset_data():
    names = [f"H-000-MSG4__-MSG4________-IR_108___-{number:06d}___-202506260715-__" for number in range(1, 51)]
    return {
        "platform_name": "Meteosat-11",
        "sensor": ["seviri"],
        "start_time": "2025-06-26T07:15:00",
        "nominal_time": "2025-06-26T07:15:00",
        "dataset": [{"uri": "/san1/geo_in/0deg/" + name, "uid": name} for name in names],
        "sent": _MOMENT,
    }


TYPES = {"text": "info", "file": "file", "dataset": "dataset"}
DATA = {"text": "a granule has arrived " + _MOMENT, "file": file_data(), "dataset": _dataset_data()}


def _data(kind):
    """Return the data of a kind, of which a number is text of so many bytes."""
    return DATA[kind] if kind in DATA else int(kind) * "x"


def as_message(kind):
    """Return the text of a message in the package's format."""
    data = _data(kind)
    content = "text/ascii " + data if isinstance(data, str) else "application/json " + json.dumps(data)
    return f"pytroll:/{SUBJECT} {TYPES.get(kind, 'info')} {_SENDER} {_TIME} v1.01 {content}"


def as_json(kind):
    """Return the same as a JSON object, for systems that leave the format to their users."""
    parts = {"subject": SUBJECT, "type": TYPES.get(kind, "info"), "sender": _SENDER, "time": _TIME}
    return json.dumps({**parts, "data": _data(kind)}, separators=(",", ":"))


def split(frame):
    """Return what of a message is before the moment and what is behind it."""
    head, _, tail = frame.partition(_MOMENT if isinstance(frame, str) else _MOMENT.encode())
    return head, tail


def stamp():
    """Return the moment, on a clock that all processes of a host share."""
    return f"t{time.monotonic_ns():019d}"


def moment_in(data):
    """Return the moment in the data of a message, in nanoseconds."""
    return int((data if isinstance(data, str) else data["sent"])[-19:])
