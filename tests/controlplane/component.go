// One component as a process: started, killed and started again with the same flags.

package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
)

// component is a program with its flags. process is nil while it is not meant to run.
type component struct {
	name    string
	program string
	flags   []string
	pidFile string
	log     string
	process *process
}

func newComponent(folder, name, program string, flags []string) *component {
	return &component{
		name:    program,
		program: filepath.Join(folder, "programs", program),
		flags:   flags,
		pidFile: filepath.Join(folder, name+".pid"),
		log:     filepath.Join(folder, "logs", program+".log"),
	}
}

// start runs it, its log appended to what an earlier process wrote.
func (c *component) start() error {
	if err := os.MkdirAll(filepath.Dir(c.log), 0o700); err != nil {
		return err
	}
	log, err := os.OpenFile(c.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(c.program, c.flags...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = filepath.Dir(c.pidFile)
	// Ctrl-C must reach the command, not what it works with.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if c.process, err = spawn(cmd); err != nil {
		c.process = nil
		return fmt.Errorf("start %s: %w", c.name, err)
	}
	return os.WriteFile(c.pidFile, []byte(strconv.Itoa(c.process.pid)+"\n"), 0o600)
}

// kill ends it at once, as a crash would, and returns when it is gone.
func (c *component) kill() {
	if c.process == nil {
		return
	}
	c.process.kill()
	c.forget()
}

// forget notes that it is not running any more.
func (c *component) forget() {
	c.process = nil
	_ = os.Remove(c.pidFile)
}

// failure says how it ended, with the end of its log.
func (c *component) failure(what string) error {
	return fmt.Errorf("%s %s; its log ends with:\n%s", c.name, what, tail(c.log, 20))
}

// tail is the last lines of a file.
func tail(file string, lines int) []byte {
	content, err := os.ReadFile(file)
	if err != nil {
		return []byte(err.Error())
	}
	all := bytes.Split(bytes.TrimSpace(content), []byte("\n"))
	return bytes.Join(all[max(0, len(all)-lines):], []byte("\n"))
}
