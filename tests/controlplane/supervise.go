// The supervisor starts the components in order, then the command. It ends everything when the command has ended, when
// it is told to stop, or when a component ends that nobody asked to. It alone decides what runs; all that happens
// reaches one loop, one thing at a time.

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

// grace is how long the command may take to end after it was told to.
const grace = 10 * time.Second

// patience is how long a component may take to become ready, on a slow and busy machine.
const patience = 2 * time.Minute

type supervisor struct {
	plane    *plane
	client   *client
	exits    chan exit
	requests chan request
	command  *process
	// apiserver is what was last asked of it.
	apiserver mode
}

// exit is the end of a component's process, wanted or not.
type exit struct {
	component *component
	process   *process
}

// stopped is the reason when a signal ends us.
type stopped struct{ signal syscall.Signal }

func (s stopped) Error() string { return "stopped by a signal: " + s.signal.String() }

func supervise(folder string, o options) (int, error) {
	ctx := untilStopped()
	code, err := superviseIn(ctx, folder, o)
	// The guard does this too, unless it was killed. The folder of a node holds mounts, which process 1 knows to release.
	sweep()
	if !o.node.wanted() {
		os.RemoveAll(folder)
	}
	var signalled stopped
	if errors.As(err, &signalled) {
		return 128 + int(signalled.signal), nil
	}
	return code, err
}

func superviseIn(ctx context.Context, folder string, o options) (int, error) {
	plane, err := newPlane(folder, o)
	if err != nil {
		return exitFailed, err
	}
	s := &supervisor{
		plane:    plane,
		client:   newClient(plane.credentials),
		exits:    make(chan exit),
		requests: make(chan request),
	}
	defer s.killAll()
	if err := s.startAll(ctx); err != nil {
		return exitFailed, err
	}
	if err := listen(folder, s.requests); err != nil {
		return exitFailed, err
	}
	if len(o.args) > 0 {
		if err := s.startCommand(folder, o.args); err != nil {
			return exitNotFound, err
		}
	}
	return s.loop(ctx)
}

// untilStopped ends, with the signal as its cause, when we are told to stop.
func untilStopped() context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, stopSignals...)
	go func() { cancel(stopped{(<-signals).(syscall.Signal)}) }()
	return ctx
}

// startAll returns when the API server is ready, the controllers have made what a namespace needs, and so is the node,
// where there is one.
func (s *supervisor) startAll(ctx context.Context) error {
	if s.plane.node != nil {
		say("waiting for the control plane")
		if err := s.start(s.plane.node.containerd); err != nil {
			return err
		}
	}
	if err := s.start(s.plane.etcd); err != nil {
		return err
	}
	if err := s.wait(ctx, s.plane.etcdURL+"/health", s.plane.etcd); err != nil {
		return err
	}
	if err := s.start(s.plane.apiserver); err != nil {
		return err
	}
	if err := s.waitForApiserver(ctx); err != nil {
		return err
	}
	if err := s.start(s.plane.controllers); err != nil {
		return err
	}
	if s.plane.node != nil {
		if err := s.startNode(ctx); err != nil {
			return err
		}
	}
	account := s.plane.credentials.apiserver + "/api/v1/namespaces/default/serviceaccounts/default"
	return s.wait(ctx, account, s.plane.controllers)
}

func (s *supervisor) start(c *component) error {
	if err := c.start(); err != nil {
		return err
	}
	process := c.process
	go func() {
		<-process.done
		s.exits <- exit{c, process}
	}()
	return nil
}

// wait asks a component until it answers.
func (s *supervisor) wait(ctx context.Context, url string, c *component) error {
	return s.waitUntil(ctx, c, func() bool { return s.client.answers(url) })
}

// waitUntil asks for something that a component has to bring about.
func (s *supervisor) waitUntil(ctx context.Context, c *component, done func() bool) error {
	ticks := time.NewTicker(50 * time.Millisecond)
	defer ticks.Stop()
	late := time.After(patience)
	for !done() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case e := <-s.exits:
			if err := s.ended(e); err != nil {
				return err
			}
		case <-late:
			return c.failure(fmt.Sprintf("is not ready after %v", patience))
		case <-ticks.C:
		}
	}
	return nil
}

func (s *supervisor) waitForApiserver(ctx context.Context) error {
	return s.wait(ctx, s.plane.credentials.apiserver+"/readyz", s.plane.apiserver)
}

func (s *supervisor) killAll() {
	for _, c := range s.plane.components() {
		c.kill()
	}
}

// startCommand puts it into the caller's process group, so that the caller's terminal is its terminal. Beside a node we
// are in the right one ourselves.
func (s *supervisor) startCommand(folder string, args []string) error {
	callers, err := syscall.Getpgid(os.Getppid())
	if err != nil {
		return err
	}
	variables := environment(folder)
	if s.plane.node != nil {
		variables = append(variables, nodeEnvironment(folder)...)
	}
	for _, v := range variables {
		os.Setenv(v.name, v.value)
	}
	os.Setenv("PATH", programFolder(folder)+":"+os.Getenv("PATH"))
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if s.plane.node == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pgid: callers}
	}
	s.command, err = spawn(cmd)
	return err
}

// loop reacts to what happens until the command has ended. Any other reason to end is first told to the command.
func (s *supervisor) loop(ctx context.Context) (int, error) {
	var commandEnded <-chan struct{}
	if s.command != nil {
		commandEnded = s.command.done
	}
	stop := ctx.Done()
	var overdue <-chan time.Time
	var reason error
	for {
		var trouble error
		select {
		case <-commandEnded:
			return s.outcome(reason)
		case <-stop:
			stop, trouble = nil, context.Cause(ctx)
		case e := <-s.exits:
			trouble = s.ended(e)
		case r := <-s.requests:
			trouble = s.grant(ctx, r)
		case <-overdue:
			signalTree(s.command.pid, syscall.SIGKILL)
		}
		if trouble == nil || reason != nil {
			continue
		}
		reason = trouble
		if s.command == nil {
			return exitFailed, reason
		}
		s.endCommand(reason)
		overdue = time.After(grace)
	}
}

// outcome is the command's own exit code, also after a signal, unless the control plane failed under it.
func (s *supervisor) outcome(reason error) (int, error) {
	if reason == nil || errors.As(reason, new(stopped)) {
		return exitCode(s.command.state.Sys().(syscall.WaitStatus)), nil
	}
	return exitFailed, reason
}

// endCommand tells the command, and what it started, to end. What it leaves behind becomes ours to sweep.
func (s *supervisor) endCommand(reason error) {
	adoptOrphans()
	signal := syscall.SIGTERM
	var signalled stopped
	if errors.As(reason, &signalled) {
		signal = signalled.signal
	}
	signalTree(s.command.pid, signal)
}

// ended judges the end of a component's process: it is an error unless we killed it.
func (s *supervisor) ended(e exit) error {
	if e.component.process != e.process {
		return nil
	}
	e.component.forget()
	if e.component == s.plane.apiserver {
		s.apiserver = stoppedServing
	}
	return e.component.failure(fmt.Sprintf("ended (%v)", e.process.state))
}
