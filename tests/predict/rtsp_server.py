"""Minimal network camera: H.264 in RTP, interleaved in the RTSP connection.

Sources: RFC 2326 (RTSP), RFC 3550 (RTP), RFC 6184 (H.264 in RTP, one unit per packet).
"""

import io
import re
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction

import av
import numpy as np

RATE = 10  # frames per second
CLOCK = 90_000  # RTP ticks per second
SDP = f"""v=0
o=- 0 0 IN IP4 127.0.0.1
s=camera
t=0 0
m=video 0 RTP/AVP 96
a=rtpmap:96 H264/{CLOCK}
a=fmtp:96 packetization-mode=1
a=framerate:{RATE}
a=control:0
""".replace("\n", "\r\n")


def packets(frames: Sequence[np.ndarray]) -> Iterator[bytes]:
    """Yields RTP packets of frames uint8 [H, W, 3], each in an RTSP frame."""
    target = io.BytesIO()
    with av.open(target, "w", format="h264") as container:
        options = {"x264-params": "keyint=1:bframes=0", "tune": "zerolatency"}
        stream = container.add_stream("libx264", rate=Fraction(RATE), options=options)
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        for frame in frames:
            image = av.VideoFrame.from_ndarray(frame, format="rgb24")
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    units = [x for x in re.split(b"\x00?\x00\x00\x01", target.getvalue()) if x]
    shown = 0
    for number, unit in enumerate(units):
        picture = unit[0] & 31 in (1, 5)
        kind = 96 | (picture << 7)  # marks the last unit of a frame
        time = shown * CLOCK // RATE
        packet = struct.pack(">BBHII", 0x80, kind, number, time, 7) + unit
        yield struct.pack(">BBH", ord("$"), 0, len(packet)) + packet
        shown += picture


def answer(connection: socket.socket, frames: Sequence[np.ndarray]) -> None:
    """Plays the frames to one client, and closes the connection."""
    lines = connection.makefile("rb")
    while True:
        head = list(iter(lambda: lines.readline().strip(), b""))
        if not head:
            return
        method = head[0].split()[0].decode()
        number = next(x for x in head if x.lower().startswith(b"cseq")).decode()
        fields, body = [number, "Session: 1"], ""
        if method == "OPTIONS":
            fields.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
        if method == "DESCRIBE":
            fields += ["Content-Type: application/sdp", f"Content-Length: {len(SDP)}"]
            body = SDP
        if method == "SETUP":
            fields.append("Transport: RTP/AVP/TCP;unicast;interleaved=0-1")
        text = "\r\n".join(["RTSP/1.0 200 OK", *fields, "", body])
        connection.sendall(text.encode())
        if method == "PLAY":
            for packet in packets(frames):
                connection.sendall(packet)
            return


@contextmanager
def rtsp_camera(frames: Sequence[np.ndarray]) -> Iterator[str]:
    """Yields the address of a camera that sends frames to its first client."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                answer(connection, frames)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"rtsp://127.0.0.1:{server.getsockname()[1]}/pond"
        thread.join()
