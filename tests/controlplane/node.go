// What a node is made of beside the control plane: its components, and the flags of each.

package main

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const nodeName = "node"

// nodeOptions say whether there is a node, and what is in it. programs is the folder of what tests/node/build makes.
type nodeOptions struct {
	programs string
	disk     string
	images   list
}

func (o *nodeOptions) define(flags *flag.FlagSet) {
	flags.StringVar(&o.programs, "node", "", "also run a node, with the programs in this folder")
	flags.StringVar(&o.disk, "disk", "512m", "the size of the node's disk")
	flags.Var(&o.images, "image", "an archive of images for the node to have; may be repeated")
}

func (o nodeOptions) wanted() bool { return o.programs != "" }

// flags are those that make these options.
func (o nodeOptions) flags() []string {
	if !o.wanted() {
		return nil
	}
	flags := []string{"--node=" + o.programs, "--disk=" + o.disk}
	for _, image := range o.images {
		flags = append(flags, "--image="+image)
	}
	return flags
}

// list is a flag that may be repeated.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(value string) error {
	*l = append(*l, value)
	return nil
}

// node is what runs beside the control plane.
type node struct {
	images                                     []string
	containerd, scheduler, kubelet, proxy, dns *component
}

// diskFolder holds the kubelet's data and the pods' logs and emptyDirs.
func diskFolder(folder string) string { return filepath.Join(folder, "node", "disk") }

// imageFolder holds images and the writable layers of containers.
func imageFolder(folder string) string { return filepath.Join(folder, "node", "containerd") }

func newNode(folder string, o nodeOptions, c *credentials) (*node, error) {
	plugins, err := cniPlugins()
	if err != nil {
		return nil, err
	}
	if err := linkNodePrograms(folder, o.programs); err != nil {
		return nil, err
	}
	f := nodeFiles{folder: folder, authority: c.caCert, kubeconfig: c.kubeconfig, plugins: plugins}
	if err := f.write(); err != nil {
		return nil, err
	}
	kubelet, err := c.issueForNode(folder)
	if err != nil {
		return nil, err
	}
	part := func(program string, flags ...string) *component { return newComponent(folder, program, program, flags) }
	return &node{
		images:     append([]string{filepath.Join(o.programs, "pause.tar")}, o.images...),
		containerd: part("containerd", "--config="+f.path("containerd.toml")),
		scheduler:  part("kube-scheduler", "--kubeconfig="+c.kubeconfig, "--leader-elect=false", "--secure-port=0"),
		kubelet: part("kubelet", "--config="+f.path("kubelet.yaml"), "--kubeconfig="+kubelet,
			"--root-dir="+filepath.Join(diskFolder(folder), "kubelet"), "--cert-dir="+f.path("kubelet-certificates"),
			"--node-ip="+nodeIP, "--hostname-override="+nodeName),
		proxy: part("kube-proxy", "--config="+f.path("kube-proxy.yaml"), "--hostname-override="+nodeName),
		dns:   part("coredns", "-conf="+f.path("Corefile")),
	}, nil
}

func (n *node) components() []*component {
	return []*component{n.kubelet, n.proxy, n.dns, n.scheduler, n.containerd}
}

// linkNodePrograms adds the programs of a node to those of the control plane.
func linkNodePrograms(folder, built string) error {
	containerd, err := exec.LookPath("containerd")
	if err != nil {
		return err
	}
	components, err := filepath.EvalSymlinks(filepath.Join(folder, "programs", "kube-controller-manager"))
	if err != nil {
		return err
	}
	links := map[string]string{"containerd": containerd, "coredns": filepath.Join(built, "coredns")}
	for _, name := range []string{"kube-scheduler", "kubelet", "kube-proxy"} {
		links[name] = components
	}
	for name, program := range links {
		if err := os.Symlink(program, filepath.Join(folder, "programs", name)); err != nil {
			return err
		}
	}
	return nil
}

// cniPlugins is where Debian, or else the plugins' own release, puts them.
func cniPlugins() (string, error) {
	for _, folder := range []string{"/usr/lib/cni", "/opt/cni/bin"} {
		if executable(filepath.Join(folder, "ptp")) {
			return folder, nil
		}
	}
	return "", errors.New("no CNI plugins in /usr/lib/cni or /opt/cni/bin")
}
