// A control plane in the background: one for each cache folder, found again through a link in it.

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

var errNothingUp = errors.New("no control plane is up")

// up prints what a shell evaluates, once the control plane is ready.
func up(o options) (int, error) {
	unlock, err := lockUp()
	if err != nil {
		return exitFailed, err
	}
	defer unlock()
	folder, err := folderThatIsUp()
	if err == nil {
		say("already up")
	} else if folder, err = startUp(o); err != nil {
		return exitFailed, err
	}
	fmt.Print(exports(folder))
	return 0, nil
}

// down returns when nothing is left.
func down() (int, error) {
	unlock, err := lockUp()
	if err != nil {
		return exitFailed, err
	}
	defer unlock()
	folder, err := folderThatIsUp()
	if errors.Is(err, errNothingUp) {
		say("%v", err)
		return 0, nil
	}
	if err != nil {
		return exitFailed, err
	}
	return 0, endGuard(folder)
}

// startUp starts a guard that outlives us, in a session of its own.
func startUp(o options) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	log, err := os.Create(inCache("up.log"))
	if err != nil {
		return "", err
	}
	defer log.Close()
	folder, err := newFolder()
	if err != nil {
		return "", err
	}
	if err := os.Symlink(folder, inCache("up")); err != nil {
		return "", err
	}
	cmd := exec.Command(self, o.pass("guard", folder)...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	if err := waitForUp(cmd, folder); err != nil {
		os.Remove(inCache("up"))
		return "", err
	}
	return folder, nil
}

// waitForUp returns when the supervisor of the folder grants requests.
func waitForUp(guard *exec.Cmd, folder string) error {
	ended := make(chan error, 1)
	go func() { ended <- guard.Wait() }()
	ctx := untilStopped()
	for ask(folder, "ready") != nil {
		select {
		case <-ctx.Done():
			_ = guard.Process.Signal(syscall.SIGTERM)
			<-ended
			return context.Cause(ctx)
		case err := <-ended:
			return fmt.Errorf("not up (%v):\n%s", err, tail(inCache("up.log"), 40))
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

// folderThatIsUp is the folder of the one that is up. What is left of a killed one is removed.
func folderThatIsUp() (string, error) {
	folder, err := os.Readlink(inCache("up"))
	if err != nil {
		return "", errNothingUp
	}
	if guarded(folder) {
		return folder, nil
	}
	os.RemoveAll(folder)
	os.Remove(inCache("up"))
	return "", errNothingUp
}

// guarded tells whether a guard lives, which holds its file locked.
func guarded(folder string) bool {
	file, err := os.Open(filepath.Join(folder, "guard.pid"))
	if err != nil {
		return false
	}
	defer file.Close()
	return syscall.Flock(int(file.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) != nil
}

func endGuard(folder string) error {
	content, err := os.ReadFile(filepath.Join(folder, "guard.pid"))
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		return err
	}
	for guarded(folder) {
		time.Sleep(20 * time.Millisecond)
	}
	return os.Remove(inCache("up"))
}

// lockUp makes `up` and `down` wait for one another.
func lockUp() (unlock func(), err error) {
	file, err := os.Create(inCache("up.lock"))
	if err != nil {
		return nil, err
	}
	return func() { file.Close() }, syscall.Flock(int(file.Fd()), syscall.LOCK_EX)
}

// inCache names a file beside the folders of built programs, of which ours is one.
func inCache(name string) string {
	self, err := os.Executable()
	if err != nil {
		return name
	}
	return filepath.Join(filepath.Dir(filepath.Dir(self)), name)
}
