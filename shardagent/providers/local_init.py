"""The first process inside a local sandbox: runs commands, keeps the witness.

Why Python: the agent's own interpreter is the one tool sure to be there, and one small
process that spawns commands itself costs a probe a single exec, where entering the
namespaces anew (nsenter) costs three and a shell's `sleep 0.25` witness four forks a
second. It is run with -I -S and imports next to nothing, so that it starts in 10 ms.

Messages on the control socket (file descriptor 0, SOCK_SEQPACKET) are fields joined by
NUL, which no argument can contain:

  run      id, timeout in ms, challenge or "", argv…
  witness  id, nonce
  cancel   id

  answer   id, exit code, ticks, digest, output

Exit code "timeout" means that the command was killed at its deadline. The sandbox
ends when the socket closes (its agent has died) or its time to live is over.
"""

import os
import resource
import select
import sys
import time

MESSAGE_BYTES_MAX = 160 * 1024
OUTPUT_BYTES_MAX = 64 * 1024
PIPE_CHUNK_BYTES = 64 * 1024
TICK_S = 0.25
WITNESS_ANSWER_S_MAX = 1.0
WITNESS_START_S_MAX = 5.0
FILES_MAX = 1024
PROCESSES_MAX = 256
SIGKILL = 9


class Job:
    """One command that is running, and the witness's part of its answer."""

    def __init__(self, request_id: bytes, deadline: float) -> None:
        self.id = request_id
        self.deadline = deadline
        self.pid = 0
        self.pidfd = -1
        self.pipe = -1
        self.output = b""
        self.code = b""
        self.awaits_witness = False
        self.witness_deadline = 0.0
        self.witnessed = (b"", b"")


class Init:
    """The loop; one thread, one poll."""

    def __init__(self, control: int, ttl_s: float) -> None:
        self.control = control
        self.ends_at = time.monotonic() + ttl_s
        self.poll = select.poll()
        self.poll.register(control, select.POLLIN)
        self.jobs: dict[bytes, Job] = {}
        self.of_fd: dict[int, Job] = {}
        self.asked: list[Job] = []
        self.witness: tuple[int, int] | None = None
        self.witness_rest = b""

    def run(self) -> None:
        os.write(self.control, b"up")
        while True:
            now = time.monotonic()
            wait = max(0.0, min(self._deadline() - now, 60.0))
            for fd, _ in self.poll.poll(int(wait * 1000) + 1):
                if fd == self.control:
                    message = os.read(fd, MESSAGE_BYTES_MAX)
                    if not message:
                        return
                    self._handle(message.split(b"\0"))
                elif self.witness is not None and fd == self.witness[0]:
                    self._hear_witness()
                else:
                    self._hear_command(fd)
            self._expire()
            self._reap()
            if time.monotonic() >= self.ends_at:
                return

    def _deadline(self) -> float:
        deadlines = [self.ends_at]
        for job in self.jobs.values():
            if not job.code:
                deadlines.append(job.deadline)
            elif job.awaits_witness:
                deadlines.append(job.witness_deadline)
        return min(deadlines)

    def _handle(self, fields: list[bytes]) -> None:
        verb, request_id = fields[0], fields[1]
        if verb == b"run":
            self._start(request_id, int(fields[2]), fields[3], fields[4:])
        elif verb == b"witness":
            started = self._start_witness(fields[2])
            self._send(request_id, b"0" if started else b"1", b"", b"", b"")
        elif verb == b"cancel":
            job = self.jobs.get(request_id)
            if job is not None and not job.code:
                _kill_group(job.pid)

    def _start(
        self, request_id: bytes, timeout_ms: int, challenge: bytes, argv: list[bytes]
    ) -> None:
        now = time.monotonic()
        job = Job(request_id, now + timeout_ms / 1000)
        self.jobs[request_id] = job
        if challenge and self.witness is not None:
            job.awaits_witness = True
            job.witness_deadline = now + WITNESS_ANSWER_S_MAX
            self.asked.append(job)
            os.write(self.witness[1], challenge + b"\n")
        out, inlet = os.pipe()
        try:
            job.pid = os.posix_spawnp(
                argv[0],
                argv,
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, inlet, 1),
                    (os.POSIX_SPAWN_DUP2, inlet, 2),
                ],
                setpgroup=0,
            )
        except OSError as error:
            os.close(out)
            job.code = b"126" if isinstance(error, PermissionError) else b"127"
            job.output = (error.strerror or "cannot be run").encode() + b"\n"
            self._answer_if_done(job)
            return
        finally:
            os.close(inlet)
        os.set_blocking(out, False)
        job.pipe = out
        job.pidfd = os.pidfd_open(job.pid)
        for fd in (out, job.pidfd):
            self.of_fd[fd] = job
            self.poll.register(fd, select.POLLIN)

    def _hear_command(self, fd: int) -> None:
        job = self.of_fd.get(fd)
        if job is None:
            return
        if fd == job.pipe:
            self._drain(job)
            return
        _, status = os.waitpid(job.pid, 0)
        if not job.code:
            code = os.waitstatus_to_exitcode(status)
            job.code = str(code if code >= 0 else 128 - code).encode()
        self._drain(job)
        # What it left behind in its group ends with it.
        _kill_group(job.pid)
        self._forget(job.pidfd)
        if job.pipe >= 0:
            self._forget(job.pipe)
            job.pipe = -1
        self._answer_if_done(job)

    def _drain(self, job: Job) -> None:
        while job.pipe >= 0:
            try:
                chunk = os.read(job.pipe, PIPE_CHUNK_BYTES)
            except BlockingIOError:
                return
            if not chunk:
                self._forget(job.pipe)
                job.pipe = -1
                return
            job.output = (job.output + chunk)[:OUTPUT_BYTES_MAX]

    def _forget(self, fd: int) -> None:
        self.poll.unregister(fd)
        del self.of_fd[fd]
        os.close(fd)

    def _expire(self) -> None:
        now = time.monotonic()
        for job in list(self.jobs.values()):
            if not job.code and now >= job.deadline:
                job.code = b"timeout"
                _kill_group(job.pid)
            elif job.code and job.awaits_witness and now >= job.witness_deadline:
                job.awaits_witness = False
                self._answer_if_done(job)

    def _answer_if_done(self, job: Job) -> None:
        if not job.code or job.awaits_witness or job.pipe >= 0:
            return
        if self.jobs.pop(job.id, None) is not None:
            ticks, digest = job.witnessed
            self._send(job.id, job.code, ticks, digest, job.output)

    def _send(self, *fields: bytes) -> None:
        os.write(self.control, b"\0".join(fields))

    def _start_witness(self, nonce: bytes) -> bool:
        if self.witness is not None:
            return False
        asks, answers = os.pipe(), os.pipe()
        if os.fork() == 0:
            try:
                os.dup2(asks[0], 0)
                os.dup2(answers[1], 1)
                os.closerange(3, FILES_MAX)
                keep_witness(nonce)
            finally:
                os._exit(0)
        os.close(asks[0])
        os.close(answers[1])
        self.witness = (answers[0], asks[1])
        ready = select.poll()
        ready.register(answers[0], select.POLLIN)
        if not ready.poll(int(WITNESS_START_S_MAX * 1000)):
            return False
        started = os.read(answers[0], 1) == b"+"
        self.poll.register(answers[0], select.POLLIN)
        return started

    def _hear_witness(self) -> None:
        assert self.witness is not None
        data = os.read(self.witness[0], PIPE_CHUNK_BYTES)
        if not data:  # somebody killed it: challenges stay unanswered from now on
            self.poll.unregister(self.witness[0])
            self.witness = None
            for job in self.asked:
                job.awaits_witness = False
                self._answer_if_done(job)
            self.asked.clear()
            return
        *lines, self.witness_rest = (self.witness_rest + data).split(b"\n")
        for line in lines:
            ticks, digest = line.split(b" ")
            job = self.asked.pop(0)
            if job.awaits_witness:
                job.witnessed = (ticks, digest)
                job.awaits_witness = False
                self._answer_if_done(job)

    def _reap(self) -> None:
        """As process 1 it buries orphans; commands are waited for by their pidfd."""
        waited = {job.pid for job in self.jobs.values()}
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None or found.si_pid in waited:
                return
            os.waitpid(found.si_pid, 0)


def keep_witness(nonce: bytes) -> None:
    """Ticks while it runs, and only then: a tick missed is never made up for."""
    for name in ("_sha2", "_sha256", "hashlib"):  # hashlib starts slowly
        try:
            sha256 = __import__(name).sha256
            break
        except ImportError:
            continue
    poll = select.poll()
    poll.register(0, select.POLLIN)
    os.write(1, b"+")
    ticks, rest = 0, b""
    due = time.monotonic() + TICK_S
    while True:
        ready = poll.poll(max(0, int((due - time.monotonic()) * 1000) + 1))
        now = time.monotonic()
        if now >= due:
            ticks += 1
            due = due + TICK_S if now < due + TICK_S else now + TICK_S
        if ready:
            data = os.read(0, PIPE_CHUNK_BYTES)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            for challenge in lines:
                digest = sha256(nonce + challenge).hexdigest()
                os.write(1, f"{ticks} {digest}\n".encode())


def _kill_group(pid: int) -> None:
    try:
        if pid:
            os.killpg(pid, SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _limit(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, value))


def main() -> None:
    """argv: the mark with the labels, seconds to live, MiB of memory."""
    ttl_s, memory_mb = float(sys.argv[2]), int(sys.argv[3])
    control = os.dup(0)  # not inherited by commands
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    # RLIMIT_AS would stop runtimes that reserve far more than they use (node);
    # RLIMIT_DATA counts what is really writable and private.
    _limit(resource.RLIMIT_DATA, memory_mb * 1_048_576)
    _limit(resource.RLIMIT_NPROC, PROCESSES_MAX)
    _limit(resource.RLIMIT_NOFILE, FILES_MAX)
    _limit(resource.RLIMIT_CORE, 0)
    init = Init(control, ttl_s)
    try:
        init.run()
    finally:  # without a pid namespace nothing else would end them
        for job in init.jobs.values():
            _kill_group(job.pid)


if __name__ == "__main__":
    main()
    os._exit(0)
