// Child processes that cannot outlive us, and the processes below them.

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a started child. state may be read once done is closed.
type process struct {
	pid   int
	done  chan struct{}
	state *os.ProcessState
}

// spawn starts a child that the kernel kills when we die. That promise hangs on the thread that started it, so each
// child has one for its whole life.
func spawn(cmd *exec.Cmd) (*process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	p := &process{done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		if err == nil {
			p.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			_ = cmd.Wait()
			p.state = cmd.ProcessState
			close(p.done)
		}
	}()
	return p, <-started
}

func (p *process) kill() {
	_ = syscall.Kill(p.pid, syscall.SIGKILL)
	<-p.done
}

// exitCode is what a shell would say: the code itself, or 128 and the signal.
func exitCode(status syscall.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

// signalTree signals a process and everything below it all at once, as a terminal does for Ctrl-C. They are suspended
// first, so that none is missed that is just being started, and none is hit that was started because of the signal.
func signalTree(root int, signal syscall.Signal) {
	tree := []int{root}
	for i := 0; i < len(tree); i++ {
		suspend(tree[i])
		tree = append(tree, children()[tree[i]]...)
	}
	for _, s := range []syscall.Signal{signal, syscall.SIGCONT} {
		for _, pid := range tree {
			_ = syscall.Kill(pid, s)
		}
	}
}

// suspend returns when a process stands still or is gone; one that waits for a disk may take its time, but not ours.
func suspend(pid int) {
	_ = syscall.Kill(pid, syscall.SIGSTOP)
	for range 1000 {
		state, _, ok := readStat(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
		if !ok || state == "T" || state == "Z" {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// adoptOrphans makes us the parent of every process below us whose own parent ends.
func adoptOrphans() {
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
}

// sweep kills everything below us until nothing is left. Nobody else may be waiting for a child.
func sweep() {
	for {
		for _, pid := range descendants(os.Getpid()) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if err == syscall.ECHILD {
			return
		}
		if pid == 0 {
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// descendants lists the processes below one.
func descendants(root int) []int {
	all := children()
	var found []int
	for next := all[root]; len(next) > 0; next = next[1:] {
		found = append(found, next[0])
		next = append(next, all[next[0]]...)
	}
	return found
}

// children lists, for each process of this machine, those that it is the parent of.
func children() map[int][]int {
	found := map[int][]int{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if _, parent, ok := readStat(path); ok {
			found[parent] = append(found[parent], pid)
		}
	}
	return found
}

func readStat(path string) (state string, parent int, ok bool) {
	stat, err := os.ReadFile(path)
	if err != nil {
		return "", 0, false
	}
	return parseStat(stat)
}

// parseStat reads state and parent; they follow the program's name, which may itself hold blanks and parentheses.
func parseStat(stat []byte) (state string, parent int, ok bool) {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 {
		return "", 0, false
	}
	parent, err := strconv.Atoi(string(fields[1]))
	return string(fields[0]), parent, err == nil
}
