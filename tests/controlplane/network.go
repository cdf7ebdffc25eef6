// The network of a node: loopback, a bridge that carries the node's address, and a route to the Services. It leads
// nowhere else, so that no test depends on the world. The pods' interfaces are made by CNI plugins.

package main

import (
	"fmt"
	"os"
	"os/exec"
)

const (
	nodeIP  = "10.240.0.1"
	podCIDR = "10.244.0.0/24"
	dnsIP   = "10.0.0.10" // in serviceRange
)

// layNetwork uses a bridge since that is a device that every kernel has which can run containers.
func layNetwork() error {
	for _, args := range [][]string{
		{"link", "set", "lo", "up"},
		{"link", "add", "node", "type", "bridge"},
		{"address", "add", nodeIP + "/32", "dev", "node"},
		{"link", "set", "node", "up"},
		// The packet filter turns these addresses into others, yet the kernel first wants to know a way.
		{"route", "add", serviceRange, "dev", "node", "src", nodeIP},
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %v: %w: %s", args, err, out)
		}
	}
	return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0)
}
