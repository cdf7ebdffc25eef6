// Starting a node beside the control plane, in an order that lets each part find what it needs.

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// startNode returns when the node is ready and answers for names and Services. containerd is running already.
func (s *supervisor) startNode(ctx context.Context) error {
	n := s.plane.node
	if err := s.start(n.scheduler); err != nil {
		return err
	}
	say("waiting for containerd to take %d images", len(n.images))
	if err := s.waitUntil(ctx, n.containerd, func() bool { return load(n.images[0]) == nil }); err != nil {
		return err
	}
	if err := load(n.images[1:]...); err != nil {
		return err
	}
	for _, c := range []*component{n.kubelet, n.proxy, n.dns} {
		if err := s.start(c); err != nil {
			return err
		}
	}
	if err := s.apply("kube-dns.yaml"); err != nil {
		return err
	}
	return s.waitForNode(ctx)
}

func (s *supervisor) waitForNode(ctx context.Context) error {
	n := s.plane.node
	say("waiting for the node to be ready")
	if err := s.waitUntil(ctx, n.kubelet, s.nodeIsReady); err != nil {
		return err
	}
	say("waiting for Services and DNS")
	if err := s.wait(ctx, "http://127.0.0.1:10256/healthz", n.proxy); err != nil {
		return err
	}
	return s.wait(ctx, "http://127.0.0.1:8181/ready", n.dns)
}

// nodeIsReady tells whether pods would be scheduled: the taint of a node that was just made goes last.
func (s *supervisor) nodeIsReady() bool {
	var node struct {
		Spec   struct{ Taints []any }
		Status struct {
			Conditions []struct{ Type, Status string }
		}
	}
	content := s.client.get(s.plane.credentials.apiserver + "/api/v1/nodes/" + nodeName)
	if json.Unmarshal(content, &node) != nil || len(node.Spec.Taints) > 0 {
		return false
	}
	for _, c := range node.Status.Conditions {
		if c.Type == "Ready" {
			return c.Status == "True"
		}
	}
	return false
}

// load imports archives of images. A name without a registry is one of docker.io/library, as the kubelet reads it.
func load(archives ...string) error {
	for _, archive := range archives {
		ctr := exec.Command("ctr", "--namespace=k8s.io", "images", "import", archive)
		if out, err := ctr.CombinedOutput(); err != nil {
			return fmt.Errorf("load the images of %s: %w: %s", archive, err, bytes.TrimSpace(out))
		}
	}
	return nil
}

// loadImages is `load ARCHIVE…`, for a command that runs beside the node.
func loadImages(archives []string) (int, error) {
	if os.Getenv("TIDINGS_NODE") == "" {
		return exitFailed, fmt.Errorf("load: no node here: TIDINGS_NODE is not set")
	}
	if err := load(archives...); err != nil {
		return 1, err
	}
	return 0, nil
}

func (s *supervisor) apply(name string) error {
	folder := s.plane.folder
	kubectl := exec.Command(filepath.Join(programFolder(folder), "kubectl"),
		"--kubeconfig="+filepath.Join(folder, "kubeconfig"), "--cache-dir="+filepath.Join(folder, "kubectl-cache"),
		"create", "--validate=false", "-f", filepath.Join(folder, "node", name))
	if out, err := kubectl.CombinedOutput(); err != nil {
		return fmt.Errorf("create what %s says: %w: %s", name, err, out)
	}
	return nil
}
