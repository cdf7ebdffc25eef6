// The folder of one control plane: what lies where in it, and what a shell needs to use it.

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// newFolder makes an empty one that only its owner may read, for it will hold keys.
func newFolder() (string, error) {
	return os.MkdirTemp("", "tidings-controlplane-")
}

// variable is one of the environment.
type variable struct{ name, value string }

// environment points kubectl and clients to the control plane in the folder, and keeps the user's own settings out.
func environment(folder string) []variable {
	return []variable{
		{"TIDINGS_CONTROLPLANE", folder},
		{"KUBECONFIG", filepath.Join(folder, "kubeconfig")},
		{"KUBECACHEDIR", filepath.Join(folder, "kubectl-cache")},
		{"KUBERC", "off"},
	}
}

// nodeEnvironment is what a command finds beside a node.
func nodeEnvironment(folder string) []variable {
	return []variable{
		{"TIDINGS_NODE", filepath.Join(folder, "node")},
		{"TIDINGS_NODE_DISK", diskFolder(folder)},
		{"TIDINGS_NODE_IP", nodeIP},
	}
}

// exports is the environment as a shell reads it, with our kubectl before any other.
func exports(folder string) string {
	var lines strings.Builder
	for _, v := range environment(folder) {
		fmt.Fprintf(&lines, "export %s=%s\n", v.name, quote(v.value))
	}
	fmt.Fprintf(&lines, "export PATH=%s:\"$PATH\"\n", quote(programFolder(folder)))
	return lines.String()
}

// programFolder is what goes to the front of PATH.
func programFolder(folder string) string {
	return filepath.Join(folder, "bin")
}

func quote(value string) string {
	return "'" + strings.ReplaceAll(value, "'", `'\''`) + "'"
}

// linked are the programs of a control plane, by where they are linked in its folder.
var linked = []string{"programs/etcd", "programs/kube-apiserver", "programs/kube-controller-manager", "bin/kubectl"}

// linkPrograms takes each program from KUBEBUILDER_ASSETS where that has it, and from our own build otherwise. The
// folder also gets this program, so that `apiserver` needs no build.
func linkPrograms(folder string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	links := map[string]string{"controlplane": self}
	for _, name := range linked {
		program, err := find(filepath.Base(name), filepath.Join(filepath.Dir(self), "components"))
		if err != nil {
			return err
		}
		links[name] = program
	}
	for link, program := range links {
		path := filepath.Join(folder, link)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.Symlink(program, path); err != nil {
			return err
		}
	}
	return nil
}

func find(name, built string) (string, error) {
	if assets := os.Getenv("KUBEBUILDER_ASSETS"); assets != "" {
		if path, err := filepath.Abs(filepath.Join(assets, name)); err == nil && executable(path) {
			return path, nil
		}
	}
	if executable(built) {
		return built, nil
	}
	return "", fmt.Errorf("no %s: neither in KUBEBUILDER_ASSETS nor at %s", name, built)
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}
