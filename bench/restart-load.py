#!/usr/bin/env python3
"""Peers for restarts under load; each client says what it saw as JSON, a line for each line on its stdin, and ends with its stdin.

  serve NAME PORT            echoes lines with its name (PORT), streams as many bytes as a line asks for (PORT + 1)
  ping  VIP PORT             a byte there and back, 5 ms after the last one came: the longest time without an answer since the last report
  hold  VIP PORT N           N connections; each report lets all of them ask once more
  new   VIP PORT RATE        RATE connections a second, each opened, asked once and closed
  bulk  VIP PORT BYTES       one download, compared with what was sent by its SHA-256
"""
import hashlib
import json
import random
import select
import socket
import sys
import threading
import time

BLOCK = random.Random(4711).randbytes(1 << 20)
PATIENCE = 20


def say(**what):
    print(json.dumps(what), flush=True)


def listen(port):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("0.0.0.0", port))
    s.listen(4096)
    return s


def stream(c):
    wanted = int(c.makefile("r").readline())
    sent = 0
    while sent < wanted:
        part = min(len(BLOCK), wanted - sent)
        c.sendall(BLOCK[:part])
        sent += part
    c.close()


def serve(name, port):
    bulk = listen(port + 1)

    def accept():
        while True:
            threading.Thread(target=stream, args=(bulk.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    lines = listen(port)
    lines.setblocking(False)
    e = select.epoll()
    e.register(lines.fileno(), select.EPOLLIN)
    conns = {}
    print("ready", flush=True)
    while True:
        for fd, _ in e.poll():
            if fd == lines.fileno():
                try:
                    while True:
                        c, _ = lines.accept()
                        c.setblocking(False)
                        conns[c.fileno()] = c
                        e.register(c.fileno(), select.EPOLLIN)
                except BlockingIOError:
                    continue
            c = conns[fd]
            try:
                data = c.recv(64)
            except OSError:
                data = b""
            if data:
                c.send(data if data == b"." else name.encode() + b"\n")
            else:
                e.unregister(fd)
                c.close()
                del conns[fd]


class Asked:
    """Tells from another thread that a line came, or the end."""

    def __init__(self):
        self.lines = 0
        self.ended = False
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for _ in sys.stdin:
            self.lines += 1
        self.ended = True

    def take(self):
        taken = self.lines > 0
        self.lines -= taken
        return taken


def ping(vip, port):
    s = socket.create_connection((vip, port), PATIENCE)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    s.settimeout(PATIENCE)
    asked = Asked()
    longest = count = 0
    error = None
    say(ready=True)
    last = time.monotonic()
    while not asked.ended:
        try:
            s.send(b".")
            if s.recv(1) != b".":
                raise OSError("closed")
        except OSError as e:
            error = str(e)
            say(error=error)
            return
        now = time.monotonic()
        longest = max(longest, now - last)
        count += 1
        if asked.take():
            say(count=count, longestMs=round(longest * 1000, 1))
            longest = count = 0
        time.sleep(0.005)
        last = time.monotonic()


def hold(vip, port, n):
    held = []
    e = select.epoll()
    for i in range(n):
        s = socket.create_connection((vip, port), PATIENCE)
        s.setblocking(False)
        e.register(s.fileno(), select.EPOLLIN)
        held.append(s)
    by = {s.fileno(): i for i, s in enumerate(held)}
    names = [None] * n

    def ask():
        errors = {}
        left = set(range(n))
        for i, s in enumerate(held):
            try:
                s.send(b"who\n")
            except OSError as error:
                errors[str(error)] = errors.get(str(error), 0) + 1
                left.discard(i)
        end = time.monotonic() + PATIENCE
        answered = moved = 0
        while left and time.monotonic() < end:
            for fd, _ in e.poll(0.1):
                i = by[fd]
                try:
                    data = held[i].recv(64)
                except OSError as error:
                    data = b""
                    errors[str(error)] = errors.get(str(error), 0) + 1
                if not data:
                    e.unregister(fd)
                else:
                    answered += 1
                    moved += names[i] not in (None, data)
                    names[i] = data
                left.discard(i)
        say(answered=answered, silent=len(left), moved=moved, errors=errors)

    ask()
    for _ in sys.stdin:
        ask()


def new(vip, port, rate):
    asked = Asked()
    e = select.epoll()
    live = {}
    done = 0
    slowest = 0.0
    errors = {}
    say(ready=True)
    began = time.monotonic()
    opened = 0
    while not asked.ended or live:
        now = time.monotonic()
        while not asked.ended and opened < (now - began) * rate:
            opened += 1
            s = socket.socket()
            s.setblocking(False)
            s.connect_ex((vip, port))
            live[s.fileno()] = [s, now, False]
            e.register(s.fileno(), select.EPOLLOUT)
        for fd, _ in e.poll(1 / rate):
            s, since, has_asked = live[fd]
            try:
                if not has_asked:
                    error = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if error:
                        raise OSError(error, "connect")
                    s.send(b"who\n")
                    live[fd][2] = True
                    e.modify(fd, select.EPOLLIN)
                    continue
                if not s.recv(64):
                    raise OSError("closed")
                done += 1
                slowest = max(slowest, time.monotonic() - since)
            except OSError as error:
                errors[str(error)] = errors.get(str(error), 0) + 1
            e.unregister(fd)
            s.close()
            del live[fd]
        if asked.take():
            say(done=done, slowestMs=round(slowest * 1000, 1), errors=errors)
            done, slowest = 0, 0.0
        if asked.ended and live and time.monotonic() - max(since for _, since, _ in live.values()) > PATIENCE:
            errors["silence"] = len(live)
            break
    say(done=done, slowestMs=round(slowest * 1000, 1), errors=errors)


def bulk(vip, port, size):
    s = socket.create_connection((vip, port + 1), PATIENCE)
    s.settimeout(PATIENCE)
    s.send(b"%d\n" % size)
    say(ready=True)
    began = time.monotonic()
    got = 0
    seen = hashlib.sha256()
    while True:
        try:
            data = s.recv(1 << 18)
        except OSError as error:
            say(error=str(error), bytes=got)
            return
        if not data:
            break
        got += len(data)
        seen.update(data)
    sent = hashlib.sha256()
    for at in range(0, size, len(BLOCK)):
        sent.update(BLOCK[: min(len(BLOCK), size - at)])
    say(bytes=got, intact=seen.digest() == sent.digest(), seconds=round(time.monotonic() - began, 2))


command, *words = sys.argv[1:]
numbers = [int(word) for word in words[1:]]
{"serve": serve, "ping": ping, "hold": hold, "new": new, "bulk": bulk}[command](words[0], *numbers)
