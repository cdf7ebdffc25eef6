// The guard is the process that a caller knows. It starts the supervisor, passes signals on to it, adopts what the
// command leaves running, and removes the folder at the end. When the guard itself is killed, the kernel tells the
// supervisor, which then does the same.

package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

var stopSignals = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP}

func guard(folder string, o options) (int, error) {
	// The supervisor's parent-death signal belongs to this thread.
	runtime.LockOSThread()
	defer os.RemoveAll(folder)
	if o.node.wanted() {
		defer removeCgroups(folder)
	}
	held, err := holdGuardFile(folder)
	if err != nil {
		return exitFailed, err
	}
	defer held.Close()
	adoptOrphans()
	if o.node.wanted() {
		return watch("init", folder, o, &syscall.SysProcAttr{Cloneflags: namespaces, Setpgid: !onTerminal()})
	}
	// A process group of its own: Ctrl-C must reach the command, not the API server under it.
	return watch("supervise", folder, o, &syscall.SysProcAttr{Setpgid: true})
}

// watch runs another process of ours, which is told to end when we die, and passes signals on to it. Nothing below us
// is left when this returns.
func watch(verb, folder string, o options, how *syscall.SysProcAttr) (int, error) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, stopSignals...)
	child, err := startSelf(o.pass(verb, folder), how)
	if err != nil {
		return exitFailed, err
	}
	go func() {
		for s := range signals {
			_ = syscall.Kill(child, s.(syscall.Signal))
		}
	}()

	status := reapUntil(child)
	sweep()
	if status.Signaled() {
		return exitCode(status), fmt.Errorf("the supervisor was ended by a signal: %v", status.Signal())
	}
	return status.ExitStatus(), nil
}

// onTerminal tells whether the command may want to read from one, which only its foreground group can. Otherwise we and
// process 1 are in two groups, so that one of us is left to clean up when a whole group is killed.
func onTerminal() bool {
	_, err := unix.IoctlGetTermios(int(os.Stdin.Fd()), unix.TCGETS)
	return err == nil
}

func startSelf(args []string, how *syscall.SysProcAttr) (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(self, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	how.Pdeathsig = syscall.SIGTERM
	cmd.SysProcAttr = how
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	return cmd.Process.Pid, nil
}

// reapUntil waits for one child, and buries adopted ones on the way.
func reapUntil(child int) syscall.WaitStatus {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if err == nil && pid == child {
			return status
		}
	}
}

// holdGuardFile writes our process id into the folder and locks the file for as long as we live.
func holdGuardFile(folder string) (*os.File, error) {
	file, err := os.Create(filepath.Join(folder, "guard.pid"))
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, fmt.Errorf("%s has a guard already: %w", folder, err)
	}
	_, err = fmt.Fprintln(file, os.Getpid())
	return file, err
}
