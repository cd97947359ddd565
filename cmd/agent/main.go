// SPDX-License-Identifier: Apache-2.0

// Breadcrumb turns the HTTP traffic of unmodified processes into OpenTelemetry spans.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"breadcrumb/discovery"
	"breadcrumb/internal/version"

	"github.com/alecthomas/kong"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

type cli struct {
	Run     runCmd     `cmd:"" help:"Trace until stopped (SIGINT or SIGTERM: everything is sent, the summary is printed)."`
	Ps      psCmd      `cmd:"" help:"List the processes here: what they are, what they listen on, whether they are covered, and why not."`
	Check   checkCmd   `cmd:"" help:"Say what this kernel and these rights allow, item by item. Exits with 1 if tracing is impossible."`
	Record  recordCmd  `cmd:"" help:"Trace, and write the raw events of the run to FILE."`
	Replay  replayCmd  `cmd:"" help:"Feed a recording through everything behind the ring buffer."`
	Version versionCmd `cmd:"" help:"Print the version."`
}

// selection are the flags that say which processes are meant.
type selection struct {
	PID    []uint32              `name:"pid" sep:"none" placeholder:"N" help:"This process and its descendants. Repeatable, as all of these."`
	Exe    []discovery.Glob      `name:"exe" sep:"none" placeholder:"GLOB" help:"Processes whose executable's path matches; without a slash: whose file name does. * stays within a folder, ** does not."`
	Port   []discovery.PortRange `name:"port" sep:"none" placeholder:"N|N-M" help:"Processes that listen on this TCP port, or one of these."`
	Cgroup []discovery.Glob      `name:"cgroup" sep:"none" placeholder:"PATH-GLOB" help:"Processes in a cgroup that matches, or below it."`
	All    bool                  `name:"all" help:"Every process of this machine but breadcrumb itself."`
}

// common are the flags of everything that makes spans.
type common struct {
	Config       string `name:"config" placeholder:"FILE" type:"path" help:"Configuration file (YAML). Flags win over the OTEL_* variables, these over the file."`
	OTLPEndpoint string `name:"otlp-endpoint" placeholder:"URL" help:"Send spans there by OTLP over gRPC: http://host:4317 in plaintext, https://host:4317 with TLS."`
	Output       string `name:"output" placeholder:"tree|json|none" help:"What is printed: each finished trace as a tree, each span as a line of JSON, or nothing. Default: tree on a terminal without an endpoint, else none."`
	InferParents bool   `name:"infer-parents" help:"Give calls of which nothing else tells for whom they were made a parent by time alone: a guess, marked as such, with a confidence."`
	LogLevel     string `name:"log-level" placeholder:"LEVEL" help:"debug, info (the default), warn or error. Logs go to standard error."`
}

// tracing are the flags of what attaches to the kernel.
type tracing struct {
	Attach string `name:"attach" placeholder:"auto|fentry|kprobe|tracepoint" help:"How to get at the bytes; auto takes the first of these that works here. 'breadcrumb check' says which do, and why others do not."`
}

// override lets the flags win over what the configuration says.
func (t *tracing) override(cfg *Config) error {
	if t.Attach != "" {
		cfg.Kernel.Attach = t.Attach
	}
	return prefixed("kernel", cfg.Kernel.Validate())
}

func (s *selection) rules() []discovery.Rule {
	return discovery.Flags{PIDs: s.PID, Exes: s.Exe, Ports: s.Port, Cgroups: s.Cgroup, All: s.All}.Rules()
}

// config puts the defaults, the file, the environment and the flags together, each over what came before.
func (c *common) config() (Config, error) {
	cfg := defaultConfig()
	if c.Config != "" {
		if err := cfg.readConfig(c.Config); err != nil {
			return cfg, err
		}
	}
	cfg.OTLP.FromEnv(os.Getenv)
	envErr := errors.Join(cfg.Queue.FromEnv(os.Getenv), cfg.HTTP.FromEnv(os.Getenv))
	if c.OTLPEndpoint != "" {
		cfg.OTLP.Endpoint = c.OTLPEndpoint
	}
	if c.Output != "" {
		cfg.Output = c.Output
	}
	cfg.InferParents = cfg.InferParents || c.InferParents
	if c.LogLevel != "" {
		cfg.LogLevel = c.LogLevel
	}
	if envErr != nil {
		// The standard asks for a warning and the default.
		fmt.Fprintf(os.Stderr, "breadcrumb: %v\n", envErr)
	}
	return cfg, cfg.validate()
}

func newLogger(level string) (*zap.Logger, error) {
	l, err := zapcore.ParseLevel(level)
	if err != nil {
		return nil, err
	}
	cfg := zap.NewProductionConfig()
	cfg.Level = zap.NewAtomicLevelAt(l)
	cfg.Encoding = "console"
	cfg.EncoderConfig = zap.NewDevelopmentEncoderConfig()
	cfg.EncoderConfig.EncodeTime = zapcore.ISO8601TimeEncoder
	cfg.DisableCaller = true
	cfg.DisableStacktrace = true
	cfg.Sampling = nil
	return cfg.Build()
}

type versionCmd struct{}

func (versionCmd) Run() error {
	_, err := fmt.Println("breadcrumb", version.String())
	return err
}

// errSilent makes the exit status 1 when everything has been said.
var errSilent = errors.New("")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var c cli
	k := kong.Parse(&c,
		kong.Name("breadcrumb"),
		kong.Description("Traces HTTP traffic of unmodified programs, in any language, as OpenTelemetry spans."),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, Summary: true}),
		kong.BindTo(ctx, (*context.Context)(nil)),
	)
	if err := k.Run(); err != nil {
		if !errors.Is(err, errSilent) {
			fmt.Fprintf(os.Stderr, "breadcrumb: %v\n", err)
		}
		stop()
		os.Exit(1)
	}
}
