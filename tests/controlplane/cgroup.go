// The cgroups of a node's pods, below one of its own in every hierarchy that the machine has. Cgroups belong to no
// namespace: they are the one thing outside of its folder that a node would leave behind.

package main

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// cgroupName is that of the node in a folder, below the root of each hierarchy.
func cgroupName(folder string) string {
	return filepath.Base(folder)
}

func makeCgroups(folder string) error {
	hierarchies := hierarchies()
	if len(hierarchies) == 0 {
		return fmt.Errorf("no cgroup is mounted")
	}
	for _, root := range hierarchies {
		own := filepath.Join(root, cgroupName(folder))
		if err := os.Mkdir(own, 0o755); err != nil {
			return err
		}
		for _, cgroup := range []string{root, own} {
			if err := enableControllers(cgroup); err != nil {
				return err
			}
		}
	}
	return nil
}

// enableControllers lets the cgroups below one limit what it can itself. Version 1 does so anyway.
func enableControllers(cgroup string) error {
	controllers, err := os.ReadFile(filepath.Join(cgroup, "cgroup.controllers"))
	if err != nil {
		return nil
	}
	for _, name := range strings.Fields(string(controllers)) {
		if err := os.WriteFile(filepath.Join(cgroup, "cgroup.subtree_control"), []byte("+"+name), 0); err != nil {
			return err
		}
	}
	return nil
}

// removeCgroups returns when none is left. The kernel may take a moment to forget the last process of one.
func removeCgroups(folder string) {
	for _, root := range hierarchies() {
		top := filepath.Join(root, cgroupName(folder))
		for range 500 {
			removeTree(top)
			if _, err := os.Stat(top); err != nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// removeTree removes folders from the innermost out; the files in a cgroup go with it.
func removeTree(top string) {
	var folders []string
	_ = filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			folders = append(folders, path)
		}
		return nil
	})
	for _, path := range slices.Backward(folders) {
		_ = os.Remove(path)
	}
}

// hierarchies are where cgroups are mounted: one folder for version 2, one for each controller for version 1.
func hierarchies() []string {
	var found []string
	file, err := os.Open("/proc/self/mounts")
	if err != nil {
		return nil
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) > 2 && strings.HasPrefix(fields[2], "cgroup") && !slices.Contains(found, fields[1]) {
			found = append(found, fields[1])
		}
	}
	return found
}
