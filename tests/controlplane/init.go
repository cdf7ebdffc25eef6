// Process 1 of a node's namespaces. A node changes mounts, addresses, routes and packet filters, and its containers are
// nobody's children; in namespaces of their own all of that ends with this process, whatever ends it. What the machine
// itself would keep is the folder and the cgroups, which this process removes and, when it was killed, the guard.

package main

import (
	"os"
	"runtime"
	"syscall"
)

const namespaces = syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID

// initialise runs the supervisor, and waits for all that loses its parent. On a terminal it is in the caller's process
// group, as the supervisor and the command are: a group that began outside has no number in here to join it by.
func initialise(folder string, o options) (int, error) {
	// The supervisor's parent-death signal belongs to this thread.
	runtime.LockOSThread()
	defer func() {
		if releaseMounts(folder) == nil {
			os.RemoveAll(folder)
		}
	}()
	defer removeCgroups(folder)
	if err := furnish(folder, o.node); err != nil {
		return exitFailed, err
	}
	return watch("supervise", folder, o, &syscall.SysProcAttr{})
}

// furnish makes of the new namespaces a machine for a node.
func furnish(folder string, o nodeOptions) error {
	for _, step := range []func() error{
		ownMounts,
		func() error { return mountNode(folder, o.disk) },
		layNetwork,
		func() error { return makeCgroups(folder) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
