// Controlplane runs a real Kubernetes control plane on this machine for as long as a test needs it.
//
//	run      main -> guard -> supervise -> etcd, kube-apiserver, kube-controller-manager, and then the command
//	up       main -> guard -> supervise -> the same without a command, in the background until `down`
//	run --node  main -> guard -> init -> supervise -> the same and a node, in namespaces of their own
//	apiserver                 asks the supervisor of a running one, through a socket in its folder
//
// The guard and the supervisor watch each other: whichever of the two is killed, the other leaves neither a process nor
// a file behind. Everything of one control plane is in one temporary folder; only the built programs are shared.
package main

import (
	"flag"
	"fmt"
	"os"
	"strconv"
)

const usage = `usage: run [--fsync] [--] COMMAND…        a control plane for the time that COMMAND runs
       run --node PROGRAMS [--disk SIZE] [--image ARCHIVE]… [--] COMMAND…    the same with a node (see tests/node)
       load ARCHIVE…                      gives images to the node that this is run beside
       up [--fsync]                       one in the background; prints what to evaluate in a shell
       down                               ends that one
       apiserver stop|start|pause|resume  acts on the API server of $TIDINGS_CONTROLPLANE, or of the one that is up`

// Exit codes of our own, out of the way of those that a test would use.
const (
	exitUsage    = 2
	exitFailed   = 125
	exitNotFound = 127
)

// options are what a control plane is started with.
type options struct {
	fsync bool
	node  nodeOptions
	args  []string
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(exitUsage)
	}
	code, err := dispatch(os.Args[1], parse(os.Args[2:]))
	if err != nil {
		say("%v", err)
	}
	os.Exit(code)
}

func dispatch(verb string, o options) (int, error) {
	switch {
	case verb == "run" && len(o.args) > 0:
		return run(o)
	case verb == "load" && len(o.args) > 0:
		return loadImages(o.args)
	case verb == "up" && len(o.args) == 0 && !o.node.wanted():
		return up(o)
	case verb == "down" && len(o.args) == 0:
		return down()
	case verb == "apiserver" && len(o.args) == 1:
		return askApiserver(o.args[0])
	case verb == "guard" && len(o.args) == 1:
		return guard(o.of())
	case verb == "init" && len(o.args) > 0:
		return initialise(o.of())
	case verb == "supervise" && len(o.args) > 0:
		return supervise(o.of())
	}
	fmt.Fprintln(os.Stderr, usage)
	return exitUsage, nil
}

func parse(args []string) options {
	var o options
	flags := flag.NewFlagSet("", flag.ExitOnError)
	flags.Usage = func() { fmt.Fprintln(os.Stderr, usage) }
	flags.BoolVar(&o.fsync, "fsync", false, "let etcd wait for the disk, as in production")
	o.node.define(flags)
	_ = flags.Parse(args)
	o.args = flags.Args()
	return o
}

// of splits what one of our own processes is given: the folder, and the options for what runs in it.
func (o options) of() (folder string, rest options) {
	folder, o.args = o.args[0], o.args[1:]
	return folder, o
}

// pass is the arguments that hand everything to another process of ours, which calls `of`.
func (o options) pass(verb, folder string) []string {
	args := append([]string{verb, "--fsync=" + strconv.FormatBool(o.fsync)}, o.node.flags()...)
	return append(append(args, "--", folder), o.args...)
}

// run gives a command a control plane of its own.
func run(o options) (int, error) {
	folder, err := newFolder()
	if err != nil {
		return exitFailed, err
	}
	return guard(folder, o)
}

func say(format string, values ...any) {
	fmt.Fprintf(os.Stderr, "controlplane: "+format+"\n", values...)
}
