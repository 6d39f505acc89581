"""A TFTP server for the tests (RFC 1350): tftp-server.py ADDRESS DIRECTORY. Each transfer has a port of its own, and options of the client are not taken up.
What it cannot do without an answer it does again after a second, five times."""
import os
import socket
import struct
import sys
import threading

READ, WRITE, DATA, ACK, ERROR = 1, 2, 3, 4, 5
BLOCK = 512
SECONDS, TRIES = 1, 5


def exchange(peer, packet, wanted, number):
    """Send the packet until its answer comes: the answer, or None."""
    for _ in range(TRIES):
        peer.send(packet)
        try:
            while True:
                answer = peer.recv(4 + BLOCK)
                if struct.unpack("!HH", answer[:4]) == (wanted, number & 0xffff):
                    return answer
        except socket.timeout:
            pass
    return None


def give(peer, path):
    with open(path, "rb") as file:
        number = 0
        while True:
            block = file.read(BLOCK)
            number += 1
            if exchange(peer, struct.pack("!HH", DATA, number & 0xffff) + block, ACK, number) is None or len(block) < BLOCK:
                return


def take(peer, path):
    with open(path + ".part", "wb") as file:
        number = 0
        while True:
            answer = exchange(peer, struct.pack("!HH", ACK, number & 0xffff), DATA, number + 1)
            if answer is None:
                return
            file.write(answer[4:])
            number += 1
            if len(answer) < 4 + BLOCK:
                break
    os.rename(path + ".part", path)
    peer.send(struct.pack("!HH", ACK, number & 0xffff))


def serve(address, directory, request, client):
    kind = struct.unpack("!H", request[:2])[0]
    path = os.path.join(directory, os.path.basename(request[2:].split(b"\0")[0].decode()))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind((address, 0))
        peer.connect(client)
        peer.settimeout(SECONDS)
        if kind == WRITE:
            take(peer, path)
        elif kind == READ and os.path.exists(path):
            give(peer, path)
        else:
            peer.send(struct.pack("!HH", ERROR, 1) + b"File not found\0")


address, directory = sys.argv[1:3]
listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
listener.bind((address, 69))
print("ready", flush=True)
while True:
    request, client = listener.recvfrom(1024)
    threading.Thread(target=serve, args=(address, directory, request, client), daemon=True).start()
