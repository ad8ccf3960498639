// Waits for SIGTERM and reaps what is left to it: process 1 of every pod's sandbox, and of a plane itself.
#include <signal.h>
#include <stddef.h>
#include <sys/wait.h>

int main(void) {
    sigset_t signals;
    int signal;
    sigemptyset(&signals);
    sigaddset(&signals, SIGCHLD);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    // Blocked, they are kept until they are waited for, for process 1 too.
    sigprocmask(SIG_BLOCK, &signals, NULL);
    while (sigwait(&signals, &signal) == 0 && signal == SIGCHLD) {
        while (waitpid(-1, NULL, WNOHANG) > 0) {
        }
    }
    return 0;
}
