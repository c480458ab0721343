"""What of Python POSIX systems have, and Windows lacks."""

NO_MODULES = frozenset({"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"})
OS = """
    chown chroot confstr copy_file_range fchmod fchown fork forkpty fstatvfs getegid geteuid getgid getgroups getloadavg
    getpgid getpgrp getpriority getresuid getsid getuid killpg lchown lockf memfd_create mkfifo mknod nice openpty
    pidfd_open pipe2 posix_fadvise posix_fallocate posix_spawn pread pwrite register_at_fork sched_getaffinity
    sched_setaffinity sched_yield sendfile setgid setpgid setpgrp setpriority setsid setuid statvfs sync sysconf
    sysconf_names ttyname uname wait wait3 wait4 waitid O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK O_SYNC WIFEXITED
    WEXITSTATUS
"""
SIGNAL = """
    SIGALRM SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGTSTP SIGUSR1 SIGUSR2 alarm pause pthread_kill
    pthread_sigmask setitimer siginterrupt sigwait
"""
NO_NAMES = {
    "os": frozenset(OS.split()),
    "signal": frozenset(SIGNAL.split()),
    "socket": frozenset({"AF_UNIX", "SO_REUSEPORT"}),
    "time": frozenset({"tzset"}),
}
"""Module -> the names in it that Windows lacks."""
