"""Cures that several rules share. In them, {pid}, {name}, {container}, {victim} and {where} are filled in."""

from __future__ import annotations

from sexton.doctor.model import Cure

_RECREATED = "The container is made anew: its zombies go with it, and what it was doing is interrupted."

USE_AN_INIT = (
    Cure(
        "docker",
        "Put an init in front, at run time or in the image",
        "docker run --init IMAGE …\n"
        "# or, in the Dockerfile, which also holds where nobody thinks of --init:\n"
        "#   COPY sexton-init /usr/bin/sexton-init\n"
        '#   ENTRYPOINT ["/usr/bin/sexton-init", "--"]',
        _RECREATED,
    ),
    Cure(
        "compose",
        "Put an init in front",
        "services:\n  SERVICE:\n    init: true\n# then: docker compose up -d SERVICE",
        _RECREATED,
    ),
    Cure(
        "kubernetes",
        "Put an init in front in the image, or let the pod's pause process be PID 1",
        "# in the pod template; a `command:` replaces the image's ENTRYPOINT, so the init must be in it\n"
        "spec:\n"
        "  containers:\n"
        "    - name: APP\n"
        '      command: ["/usr/bin/sexton-init", "--", "APP"]\n'
        "# or, without a change of the image:\n"
        "#   spec:\n"
        "#     shareProcessNamespace: true",
        "The pods are rolled. With shareProcessNamespace the containers of a pod see each other's"
        " processes, and a program that insists on being PID 1 does not start.",
    ),
    Cure(
        "podman",
        "Put an init in front",
        "podman run --init IMAGE …\n# in a quadlet, [Container]: RunInit=true",
        _RECREATED,
    ),
    Cure(
        "systemd",
        "Put a guard in front of the program in its unit",
        "# systemctl edit UNIT\n[Service]\nExecStart=\nExecStart=/usr/bin/sexton-init -- PROGRAM",
        "The unit is restarted; PROGRAM must stay in the foreground.",
    ),
)

CLEAR_NOW = Cure(
    "sexton",
    "Clear the zombies that are there, without a restart",
    "sexton reap --parent {pid}                  # says what it would do\n"
    "sexton reap --parent {pid} --yes            # nudges, then makes it wait for what it does not track\n"
    "sexton reap --parent {pid} --yes --force    # for what it may have started itself, too",
    "A nudge is harmless. Making {name} wait stops it for about a millisecond. With --force it never learns how"
    " children that it started itself have ended.",
)

NUDGE = Cure(
    "host",
    "Send SIGCHLD to the parent",
    "kill -CHLD {pid}",
    "None: a program that does not handle SIGCHLD ignores it.",
)

RESTART = (
    Cure("docker", "Restart the container", "docker restart {container}", "What it was doing is interrupted."),
    Cure("podman", "Restart the container", "podman restart {container}", "What it was doing is interrupted."),
    Cure(
        "kubernetes",
        "Restart the pods one after the other",
        "kubectl rollout restart deployment/NAME",
        "Each pod is interrupted; with more than one replica the service goes on.",
    ),
    Cure(
        "systemd",
        "Restart the unit that it belongs to",
        "systemctl restart $(ps -o unit= -p {pid})",
        "What it was doing is interrupted.",
    ),
)

REAP_IN_CODE = (
    Cure(
        "python",
        "Start helpers behind a guard that reaps their orphans",
        "subprocess.run(['sexton-init', '--', 'helper', 'argument'])",
        "None known. A waitpid(-1) loop in its place would take the statuses that subprocess waits for.",
    ),
    Cure(
        "node",
        "Start helpers behind a guard: Node cannot wait for processes that it did not start",
        "const { spawn } = require('node:child_process');\n"
        "spawn('sexton-init', ['--', 'helper', 'argument'], { stdio: 'inherit' });",
        "None known. For puppeteer, name a script that does this as executablePath.",
    ),
    Cure(
        "go",
        "Start helpers behind a guard; a Wait4(-1) loop would break every exec.Cmd.Wait of the program",
        'err := exec.Command("sexton-init", "--", "helper", "argument").Run()',
        "None known.",
    ),
    Cure(
        "java",
        "Start helpers behind a guard",
        'new ProcessBuilder("sexton-init", "--", "helper", "argument").inheritIO().start();',
        "None known.",
    ),
    Cure(
        "shell",
        "Stay in front of the program instead of exec, and let an init be PID 1",
        "#!/bin/sh\nexec sexton-init -- /start-all.sh   # and in it: job & program & wait",
        "None known.",
    ),
)

WAIT_IN_CODE = (
    Cure(
        "python",
        "Wait for each child",
        "with subprocess.Popen(argv) as process:\n    ...\n"
        "# or, for one that outlives the block: threading.Thread(target=process.wait, daemon=True).start()",
        "None known.",
    ),
    Cure(
        "node",
        "Do not block the event loop: Node waits for its children only from there",
        "const child = spawn('helper');\nchild.on('exit', (code, signal) => { /* … */ });",
        "None known.",
    ),
    Cure(
        "go",
        "Call Wait for each Start, in a goroutine of its own",
        "err := cmd.Start()\nif err != nil {\n\treturn err\n}\n"
        'go func() { log.Printf("%s: %v", cmd.Path, cmd.Wait()) }()',
        "None known.",
    ),
    Cure(
        "java",
        "Java waits for its children by itself; native code in it that forks must wait too",
        'process.onExit().thenAccept(p -> log.info("{} ended: {}", p.pid(), p.exitValue()));',
        "None known.",
    ),
    Cure("shell", "Wait for background jobs", 'job & pid=$!\nwait "$pid"', "None known."),
)
