// A node for the tests, and what they look at.

package node

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// hello is the beginning of a script: a Deployment and its Service, and another pod.
const hello = `
	kubectl apply -f testdata/hello.yaml -f testdata/client.yaml
	kubectl rollout status deployment/hello --timeout=60s
	kubectl wait --for=condition=Ready pod/client --timeout=60s
	`

// patience is how long a script with a node of its own may take.
const patience = 3 * time.Minute

// fails holds when the command does not succeed.
const fails = `fails() { if "$@"; then return 1; fi; }; `

var (
	image  string // an archive of hello:1
	shared *running
)

func TestMain(m *testing.M) {
	os.Exit(testAll(m))
}

// testAll ends the shared node, and fails with it.
func testAll(m *testing.M) int {
	folder, err := os.MkdirTemp("", "tidings-node-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(folder)
	if err := buildImage(folder); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	if shared != nil {
		shared.stdin.Close()
		shared.cmd.Wait()
	}
	return code
}

func buildImage(folder string) error {
	out, err := exec.Command("./build").Output()
	if err != nil {
		return fmt.Errorf("build: %w", err)
	}
	programs := strings.Fields(string(out))
	os.Setenv("PACK", filepath.Join(programs[len(programs)-1], "pack"))
	os.Setenv("HELLO", filepath.Join(folder, "hello"))
	image = filepath.Join(folder, "hello.tar")
	os.Setenv("IMAGE", image)
	build := exec.Command("go", "build", "-o", os.Getenv("HELLO"), "./hello")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build hello: %s", out)
	}
	if out, err := exec.Command(os.Getenv("PACK"), "hello:1", os.Getenv("HELLO"), image).CombinedOutput(); err != nil {
		return fmt.Errorf("pack hello: %s", out)
	}
	return nil
}

// onNode runs a script on the shared node, in a namespace and an empty folder of its own. It stops at the first
// command that fails.
func onNode(t *testing.T, script string) {
	t.Helper()
	needNode(t)
	folder := t.TempDir()
	namespace := strings.ToLower(t.Name())
	for _, name := range []string{"testdata", "../controlplane"} {
		path, _ := filepath.Abs(name)
		os.Symlink(path, filepath.Join(folder, filepath.Base(name)))
	}
	script = strings.ReplaceAll(script, "../controlplane/", "controlplane/")
	whole := fmt.Sprintf("set -eo pipefail; cd %s; export NAMESPACE=%s; %s\n"+`
		cp "$KUBECONFIG" kubeconfig; export KUBECONFIG=$PWD/kubeconfig
		kubectl create namespace $NAMESPACE
		kubectl config set-context --current --namespace=$NAMESPACE
		until kubectl get serviceaccount default; do sleep 0.1; done
		set -x
		%s`, folder, namespace, fails, script)
	file := filepath.Join(folder, "script")
	if err := os.WriteFile(file, []byte(whole), 0o600); err != nil {
		t.Fatal(err)
	}
	startShared(t)
	fmt.Fprintln(shared.stdin, file)
	if outcome := shared.line(); outcome != "0" {
		said, _ := os.ReadFile(file + ".out")
		t.Errorf("exit code %s:\n%s", outcome, said)
	}
}

func startShared(t *testing.T) {
	t.Helper()
	if shared == nil {
		shared = command(t, "./run", "--image", image, "--", "bash", "-c", `
			while read -r script; do timeout 120 bash "$script" >"$script.out" 2>&1 </dev/null; echo $?; done`)
		shared.stdin, _ = shared.cmd.StdinPipe()
		shared.begin()
	}
	shared.t = t
}

// running is a started script of this folder.
type running struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
	stderr bytes.Buffer
}

// start runs a shell script beside a node of its own, which has the image hello:1.
func start(t *testing.T, script string) *running {
	t.Helper()
	needNode(t)
	r := command(t, "./run", "--image", image, "--", "bash", "-c", fails+script)
	r.begin()
	return r
}

// noNode is why this machine cannot run a node, in run's own words.
var noNode = sync.OnceValue(func() string {
	out, err := exec.Command("./run", "--check").CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 77 {
		return strings.TrimSpace(string(out))
	}
	return ""
})

func needNode(t *testing.T) {
	t.Helper()
	if reason := noNode(); reason != "" {
		t.Skip(reason)
	}
}

func command(t *testing.T, name string, args ...string) *running {
	r := &running{t: t, cmd: exec.Command(name, args...)}
	r.cmd.Stderr = &r.stderr
	// Background processes of a script may keep these open.
	r.cmd.WaitDelay = time.Second
	out, _ := r.cmd.StdoutPipe()
	r.stdout = bufio.NewReader(out)
	return r
}

func (r *running) begin() {
	r.t.Helper()
	if err := r.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	// A script may wait for something that never comes.
	overdue := time.AfterFunc(patience, func() { r.cmd.Process.Signal(syscall.SIGTERM) })
	r.t.Cleanup(func() { overdue.Stop() })
}

// line is the next one that it prints.
func (r *running) line() string {
	r.t.Helper()
	line, err := r.stdout.ReadString('\n')
	if err != nil {
		r.cmd.Wait()
		r.t.Fatalf("no line: %v; stderr: %s", err, &r.stderr)
	}
	return strings.TrimSuffix(line, "\n")
}

// folder is the next line, which must be where a node is.
func (r *running) folder() string {
	r.t.Helper()
	folder := r.line()
	if _, err := os.Stat(filepath.Join(folder, "guard.pid")); err != nil {
		r.t.Fatalf("this is no node's folder: %v", err)
	}
	return folder
}

func (r *running) expect(code int) {
	r.t.Helper()
	printed, _ := io.ReadAll(r.stdout)
	r.cmd.Wait()
	status := r.cmd.ProcessState.Sys().(syscall.WaitStatus)
	got := status.ExitStatus()
	if status.Signaled() {
		got = 128 + int(status.Signal())
	}
	if got != code {
		r.t.Errorf("exit code %d, want %d\nstdout: %s\nstderr: %s", got, code, printed, &r.stderr)
	}
}

// below lists the processes below one, as this machine numbers them: process 1 of the node, the supervisor, and then
// all others.
func below(root int) []int {
	var found []int
	for next := []int{root}; len(next) > 0; next = next[1:] {
		pid := strconv.Itoa(next[0])
		children, _ := filepath.Glob("/proc/" + pid + "/task/*/children")
		for _, file := range children {
			content, _ := os.ReadFile(file)
			for _, child := range strings.Fields(string(content)) {
				number, _ := strconv.Atoi(child)
				found, next = append(found, number), append(next, number)
			}
		}
	}
	return found
}

// gone waits until nothing is left of a node in a folder: no process, also none that was only started with the
// folder's name, no mount, no cgroup, and not the folder.
func gone(t *testing.T, folder string, pids ...int) {
	t.Helper()
	var left []string
	for range 200 {
		if left = remains(folder, pids); left == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("still there: %v", left)
}

func remains(folder string, pids []int) (left []string) {
	if _, err := os.Stat(folder); err == nil {
		left = append(left, folder)
	}
	for _, pid := range pids {
		if syscall.Kill(pid, 0) == nil {
			left = append(left, strconv.Itoa(pid))
		}
	}
	cgroups, _ := filepath.Glob("/sys/fs/cgroup/*/" + filepath.Base(folder))
	below, _ := filepath.Glob("/sys/fs/cgroup/" + filepath.Base(folder))
	left = append(append(left, cgroups...), below...)
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, file := range append(files, "/proc/self/mountinfo") {
		if content, _ := os.ReadFile(file); bytes.Contains(content, []byte(folder)) {
			left = append(left, file)
		}
	}
	return left
}
