// Taking the API server away from a test, and giving it back.

package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
)

// mode is what the API server was last asked to be.
type mode int

const (
	serving mode = iota
	paused
	stoppedServing
)

// refusal is an answer to a word that does not fit, and changes nothing.
type refusal string

func (r refusal) Error() string { return string(r) }

// grant does what a request wants, and answers it. A failure that is no refusal is also returned: it ends the run.
func (s *supervisor) grant(ctx context.Context, r request) error {
	err := s.act(ctx, r.word)
	var refused refusal
	switch {
	case err == nil:
		r.reply <- granted
	case errors.As(err, &refused):
		r.reply <- err.Error()
		err = nil
	default:
		r.reply <- err.Error()
	}
	return err
}

func (s *supervisor) act(ctx context.Context, word string) error {
	switch word {
	case "ready":
		return nil
	case "stop":
		return s.stopApiserver()
	case "start":
		return s.startApiserver(ctx)
	case "pause":
		return s.pauseApiserver()
	case "resume":
		return s.resumeApiserver(ctx)
	}
	return refusal(fmt.Sprintf("unknown word %q", word))
}

// stopApiserver kills it as a crash would. It is gone when this returns, and its port refuses connections. The
// controllers go with it: they would survive, but try again ever more rarely, and a test would wait for them
// afterwards.
func (s *supervisor) stopApiserver() error {
	s.plane.apiserver.kill()
	for _, c := range s.plane.followers() {
		c.kill()
	}
	s.apiserver = stoppedServing
	return nil
}

// startApiserver returns when it is ready, on the same port and with the same data.
func (s *supervisor) startApiserver(ctx context.Context) error {
	if s.apiserver == paused {
		return refusal("it is paused: resume it")
	}
	if s.apiserver == serving {
		return nil
	}
	if err := s.start(s.plane.apiserver); err != nil {
		return err
	}
	if err := s.waitForApiserver(ctx); err != nil {
		return err
	}
	s.apiserver = serving
	for _, c := range s.plane.followers() {
		if err := s.start(c); err != nil {
			return err
		}
	}
	return nil
}

// pauseApiserver suspends it: connections are still accepted by the kernel, and nothing is answered.
func (s *supervisor) pauseApiserver() error {
	if s.apiserver == stoppedServing {
		return refusal("it is stopped: start it first")
	}
	s.apiserver = paused
	suspend(s.plane.apiserver.process.pid)
	return nil
}

// resumeApiserver returns when it answers again.
func (s *supervisor) resumeApiserver(ctx context.Context) error {
	if s.apiserver == stoppedServing {
		return refusal("it is stopped: start it")
	}
	if err := syscall.Kill(s.plane.apiserver.process.pid, syscall.SIGCONT); err != nil {
		return err
	}
	s.apiserver = serving
	return s.waitForApiserver(ctx)
}
