// SPDX-License-Identifier: Apache-2.0

// Vm runs the load tests of every BPF object, the BPF-logic tests and a set of end-to-end tests in virtual
// machines with the kernels that breadcrumb claims to work on, with every attachment that each of them has.
//
//	go run ./test/vm                     all kernels
//	go run ./test/vm -kernel 5.10,newest some of them
//
// The kernels are Debian's packages, fetched by apt, which checks their signatures, and kept in a cache;
// nothing is installed. A machine has the host's root file system, read-only and below a layer in memory:
// the servers that are traced are the host's. It needs root and QEMU, and no KVM.
//
// The table goes to standard output as Markdown and into a document, progress to standard error. The exit
// status is 0 if nothing failed; a skipped test has failed unless kernels.go says that the kernel cannot do it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"breadcrumb/test/vm/job"
)

// options are the flags.
type options struct {
	kernels string
	attach  string
	only    string
	cache   string
	out     string
	doc     string
	fetch   bool
	update  bool
	quick   bool
	maySkip bool
	cost    bool
	// parallel is how many machines run at once; each keeps a CPU of the host busy.
	parallel int
}

func init() {
	// Children are sent a signal when the thread that started them ends: it has to be one that does not.
	runtime.LockOSThread()
}

func main() {
	var o options
	flag.StringVar(&o.kernels, "kernel", "all", "`names` of the kernels, separated by commas, or all")
	flag.StringVar(&o.attach, "attach", "", "only these attachments, `names` separated by commas")
	flag.StringVar(&o.only, "only", "", "only these `columns` of the table, separated by semicolons; the document is left as it is")
	flag.BoolVar(&o.quick, "quick", false, "only what shows soonest that a kernel works; the document is left as it is")
	flag.BoolVar(&o.maySkip, "may-skip", false, "where no kernel can be had, and it is not CI, say so and pass")
	flag.BoolVar(&o.cost, "cost", false, "only measure what each attachment costs, and print it; the document is left as it is")
	flag.StringVar(&o.cache, "cache", cacheDir(), "the `folder` in which kernels are kept")
	flag.StringVar(&o.out, "out", "bin/vm", "the `folder` for results and logs")
	flag.StringVar(&o.doc, "doc", "docs/kernels.md", "the `file` that keeps the table; none if empty")
	flag.BoolVar(&o.fetch, "fetch", false, "only fetch the kernels")
	flag.BoolVar(&o.update, "update", false, "look for newer versions of kernels that are in the cache")
	flag.IntVar(&o.parallel, "parallel", max(1, runtime.NumCPU()/2), "how many machines run at once")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "vm: no arguments")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, o)
	stop()
	if errors.Is(err, errNoMirror) && o.maySkip && os.Getenv("CI") == "" {
		fmt.Fprintln(os.Stderr, "vm: other kernels are not tried:", err)
		return
	}
	if err != nil {
		if errors.Is(err, context.Canceled) {
			err = errors.New("interrupted")
		}
		fmt.Fprintln(os.Stderr, "vm:", err)
		os.Exit(1)
	}
}

// cacheDir is where kernels are kept, unless BREADCRUMB_KERNELS or a flag says otherwise.
func cacheDir() string {
	if dir := os.Getenv("BREADCRUMB_KERNELS"); dir != "" {
		return dir
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	return filepath.Join(dir, "breadcrumb", "kernels")
}

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

func run(ctx context.Context, o options) error {
	if os.Geteuid() != 0 {
		return errors.New("the host's root file system can be shared by root only")
	}
	wanted, err := find(o.kernels)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.cache, 0o755); err != nil {
		return err
	}
	images, err := fetchAll(ctx, wanted, o)
	if err != nil || o.fetch {
		return err
	}

	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "breadcrumb-vm-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	b := &builder{root: root, work: work, done: map[string]bool{}}
	tried := make([]results, len(wanted))
	errs := make([]error, len(wanted))
	var group sync.WaitGroup
	places := make(chan struct{}, max(1, o.parallel))
	for i, k := range wanted {
		places <- struct{}{}
		group.Go(func() {
			defer func() { <-places }()
			if tried[i], errs[i] = k.try(ctx, o, b, images[k.Name]); errs[i] != nil {
				errs[i] = fmt.Errorf("kernel %s: %w", k.Name, errs[i])
			}
		})
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	var (
		rows []row
		bad  int
	)
	for i, k := range wanted {
		rows = append(rows, tried[i].rows(k.chosen(o.attach))...)
		for _, f := range tried[i].failures() {
			bad++
			progress("%s: %s: %s", k.Name, f.name(), f.Why)
		}
	}
	if o.cost {
		for i, k := range wanted {
			log, err := os.ReadFile(job.LogFile(filepath.Join(work, k.Name), 0))
			if err != nil {
				return err
			}
			fmt.Printf("%s, %s: %s", k.Name, tried[i].Release, costTable(string(log)))
		}
	} else {
		fmt.Print(markdown(rows))
	}
	if o.doc != "" {
		for _, k := range wanted {
			if err := keepCheck(filepath.Join(work, k.Name), filepath.Join(root, filepath.Dir(o.doc), "check", k.Name+".txt")); err != nil {
				return err
			}
		}
	}
	if o.doc != "" && !o.partial() {
		if err := update(filepath.Join(root, o.doc), rows); err != nil {
			return err
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d checks failed; what they printed is in %s", bad, o.out)
	}
	return nil
}

// keepCheck keeps what breadcrumb check said on a kernel, if it was asked.
func keepCheck(dir, to string) error {
	text, err := os.ReadFile(filepath.Join(dir, "out", job.CheckFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o644)
}

func fetchAll(ctx context.Context, wanted []kernel, o options) (_ map[string]image, err error) {
	archive, err := openArchive(ctx, o.cache)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, archive.close()) }()
	images := map[string]image{}
	for _, k := range wanted {
		if images[k.Name], err = k.fetch(ctx, o.cache, archive, o.update); err != nil {
			return nil, fmt.Errorf("get kernel %s: %w", k.Name, err)
		}
		progress("%s is %s", k.Name, images[k.Name].Release)
	}
	return images, nil
}

// chosen are the attachments that are tried on the kernel.
func (k kernel) chosen(only string) []string {
	if only == "" {
		return slices.DeleteFunc(slices.Clone(k.Attachments), func(a string) bool { return slices.Contains(k.Loses, a) })
	}
	wanted := strings.Split(only, ",")
	return slices.DeleteFunc(slices.Clone(k.Attachments), func(a string) bool { return !slices.Contains(wanted, a) })
}

// partial says that not everything is tried.
func (o options) partial() bool { return o.attach != "" || o.only != "" || o.quick || o.cost }

// tasks are what is wanted of what can be done on the kernel.
func (o options) tasks(k kernel) []task {
	if o.cost {
		return []task{{costs, ""}}
	}
	return slices.DeleteFunc(k.tasks(k.chosen(o.attach)), func(t task) bool {
		return o.only != "" && !slices.Contains(strings.Split(o.only, ";"), t.check.Column) || o.quick && !t.check.Quick
	})
}

// try runs everything on one kernel.
func (k kernel) try(ctx context.Context, o options, b *builder, img image) (results, error) {
	built, err := b.built(ctx, k.Arch)
	if err != nil {
		return results{}, err
	}
	dir := filepath.Join(b.work, k.Name)
	out := filepath.Join(dir, "out")
	if err := os.MkdirAll(out, 0o755); err != nil {
		return results{}, err
	}
	plan := job.Plan{Root: !k.Small, ModuleRoot: b.root}
	var tasks []task
	limit := 2 * time.Minute
	for _, t := range o.tasks(k) {
		tasks = append(tasks, t)
		plan.Steps = append(plan.Steps, t.step(k))
		limit += time.Duration(t.check.Seconds) * time.Second
	}
	if err := job.Write(job.PlanFile(dir), plan); err != nil {
		return results{}, err
	}
	progress("%s: starting %s", k.Name, img.Release)
	bound, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	followed := make(chan struct{})
	go func() {
		follow(bound, k.Name, plan, dir)
		close(followed)
	}()
	bootErr := boot(bound, k, img, built, dir)
	cancel()
	<-followed
	if err := ctx.Err(); err != nil {
		return results{}, err
	}
	if bootErr != nil {
		console, _ := os.ReadFile(filepath.Join(out, "console.log"))
		progress("%s: %v; the end of its console:\n%s", k.Name, bootErr, console[max(0, len(console)-4000):])
	}
	r := k.collect(tasks, img, dir)
	kept := filepath.Join(o.out, k.Name)
	if !filepath.IsAbs(kept) {
		kept = filepath.Join(b.root, kept)
	}
	if err := errors.Join(os.RemoveAll(kept), os.MkdirAll(kept, 0o755), os.CopyFS(kept, os.DirFS(out)),
		job.Write(filepath.Join(kept, "results.json"), r)); err != nil {
		return results{}, fmt.Errorf("keep the results: %w", err)
	}
	return r, nil
}

// follow reports the steps as they are done, until ctx ends.
func follow(ctx context.Context, name string, plan job.Plan, dir string) {
	for i := 0; i < len(plan.Steps); {
		var o job.Outcome
		if job.Read(job.OutcomeFile(dir, i), &o) == nil {
			state := "ok"
			if o.Exit != 0 {
				state = o.Error
			}
			progress("%s: %s: %s, %.1f s", name, plan.Steps[i].Name, state, o.Seconds)
			i++
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(300 * time.Millisecond):
		}
	}
}
