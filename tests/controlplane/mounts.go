// The mounts of a node. Nothing of them is seen outside of its mount namespace.

package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// private are folders whose names are written down in containerd, the kubelet or a CNI library. Each node sees its own,
// empty ones there.
var private = []string{"/run/containerd", "/var/lib/cni", "/var/log/containers"}

// ownMounts lets mounts go no way between the machine and us, and shows our processes in /proc. Mounts are shared among
// ourselves, for a container may ask to see those that come later.
func ownMounts() error {
	return errors.Join(
		mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""),
		mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""),
	)
}

// mountNode mounts what a node writes to: its disk, a file system of its own that is small enough for a test to fill,
// the folder of images and containers, and what must lie elsewhere.
func mountNode(folder, size string) error {
	disk, images := diskFolder(folder), imageFolder(folder)
	for _, path := range append([]string{disk, images}, private...) {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
	}
	// A mount in place of the plain folder, so that all mounts of containers are below it and go with it.
	failed := []error{
		mount(images, images, "", unix.MS_BIND, ""),
		mount("tidings-disk", disk, "tmpfs", 0, "mode=0755,size="+size),
	}
	for _, path := range private {
		failed = append(failed, mount("tidings-node", path, "tmpfs", 0, "mode=0711"))
	}
	return errors.Join(append(failed, useClusterDNS(folder))...)
}

// useClusterDNS lets the command resolve what a pod resolves.
func useClusterDNS(folder string) error {
	file := filepath.Join(folder, "node", "resolv.conf")
	content := fmt.Sprintf("nameserver %s\nsearch svc.cluster.local cluster.local\noptions ndots:5\n", dnsIP)
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		return err
	}
	target, err := filepath.EvalSymlinks("/etc/resolv.conf")
	if err != nil {
		return nil // A machine without one resolves nothing, and needs nothing.
	}
	return mount(file, target, "", unix.MS_BIND, "")
}

func mount(source, target, kind string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s: %w", target, err)
	}
	return nil
}

// releaseMounts takes away every mount below the folder, before the folder is removed: some of them lead to files of
// other people, such as the folder of a local volume. It fails when one is left.
func releaseMounts(folder string) error {
	var failed error
	for range 1000 {
		mounted := mountsBelow(folder)
		if len(mounted) == 0 {
			return nil
		}
		failed = unix.Unmount(mounted[len(mounted)-1], unix.MNT_DETACH)
		if failed != nil {
			return failed
		}
	}
	return failed
}

func mountsBelow(folder string) []string {
	var found []string
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 4 && strings.HasPrefix(fields[4], folder+"/") {
			found = append(found, fields[4])
		}
	}
	return found
}
