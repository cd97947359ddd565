// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"encoding/json"
	"path"
	"regexp"
	"slices"
	"strings"
)

// command is a running program as far as it tells the name of a service: the script, jar or module that
// an interpreter runs, else the executable. An interpreter's own name is the last resort.
type command struct {
	exe  string // empty where it may not be read
	args []string
	lang Language
	env  environment
	cwd  func() string            // the working directory, or empty
	read func(name string) []byte // the head of a file in the process's file system, or nil
}

// service is the name.
func (c command) service() string {
	name := clean(c.name())
	if name == "" || name == "." || name == "/" {
		return "unknown_service" // what the conventions ask for where there is no name
	}
	return name
}

func (c command) name() string {
	args := c.args
	program := path.Base(c.exe)
	// A memfd or /proc/self/fd/3 is a program that was never a file: it is what it is called as.
	nameless := strings.HasPrefix(c.exe, "/memfd:") || !strings.ContainsFunc(program, isLetter)
	if c.exe == "" || nameless && len(args) > 0 {
		if len(args) == 0 {
			return ""
		}
		// "nginx: worker process" and "sshd: alice@pts/0" are titles, not paths.
		program, _, _ = strings.Cut(args[0], ":")
		program, _, _ = strings.Cut(program, " ")
		program = path.Base(program)
	}
	if multiCall[program] && len(args) > 0 {
		program = path.Base(args[0])
	}
	runs := interpreters[interpreterName(program)]
	if runs.name == nil {
		return program
	}
	if len(args) == 1 {
		// One argument with spaces is what a program that names itself leaves of its command line.
		if name := c.title(args[0]); name != "" {
			return name
		}
		if fields := strings.Fields(args[0]); len(fields) > 1 {
			args = fields
		}
	}
	if len(args) > 1 {
		if name := runs.name(c, args[1:]); name != "" {
			return name
		}
	}
	if runs.plain == "" {
		return program
	}
	return runs.plain
}

// interpreter says how the command line of an interpreter names what it runs. The arguments do not
// contain the interpreter itself; an empty result means that they do not say.
type interpreter struct {
	name  func(c command, args []string) string
	plain string // the last resort
}

var interpreters map[string]interpreter

func init() { // a literal would be a cycle: launchers start interpreters
	interpreters = map[string]interpreter{
		"python":  {command.python, "python"},
		"pypy":    {command.python, "python"},
		"uwsgi":   {command.uwsgi, "uwsgi"},
		"node":    {command.node, "node"},
		"nodejs":  {command.node, "node"},
		"deno":    {command.deno, "deno"},
		"bun":     {command.deno, "bun"},
		"java":    {command.java, "java"},
		"ruby":    {command.ruby, "ruby"},
		"php":     {command.php, "php"},
		"php-cgi": {command.php, "php"},
		"php-fpm": {func(command, []string) string { return "php-fpm" }, "php-fpm"},
		"dotnet":  {command.dotnet, "dotnet"},
		"mono":    {command.dotnet, "mono"},
		"perl":    {command.script, "perl"},
		"sh":      {command.script, "sh"},
		"bash":    {command.script, "bash"},
		"dash":    {command.script, "dash"},
		"zsh":     {command.script, "zsh"},
		"beam":    {command.erlang, "erlang"},
	}
}

// multiCall are programs that are what they are called as.
var multiCall = set("busybox", "toybox", "coreutils")

var nameVersion = regexp.MustCompile(`-?\d+(?:\.\d+)*[a-z]?(?:-c)?$`)

// interpreterName is "python" of "python3.11" and "php-fpm" of "php-fpm8.2".
func interpreterName(program string) string {
	switch program {
	case "beam.smp":
		return "beam"
	case "mono-sgen":
		return "mono"
	}
	return nameVersion.ReplaceAllString(program, "")
}

// titles are the names that servers give themselves; the service is the first group.
var titles = []*regexp.Regexp{
	regexp.MustCompile(`^gunicorn: (?:master|worker|arbiter) \[(.+)\]`),
	regexp.MustCompile(`^puma[: ].*\[([^\]]+)\]\s*$`),
	regexp.MustCompile(`^sidekiq \S+ (\S+) \[`),
	regexp.MustCompile(`^\[celeryd: .*(?:-A|--app)[ =]([^\s)]+)`),
	regexp.MustCompile(`^Passenger \w+App: (\S+)`),
	regexp.MustCompile(`^(PM2) v\S+: God Daemon`),
}

// directoryTitles are names of programs that run the project in their directory.
var directoryTitles = regexp.MustCompile(`^(?:npm |yarn |pnpm |npx |next-server|unicorn(?:_rails)? (?:master|worker)|puma[: ]|sidekiq |resque-|rails )`)

// title reads what a program calls itself, or returns empty.
func (c command) title(s string) string {
	s = strings.TrimPrefix(strings.TrimSpace(s), "-") // a login shell
	for _, re := range titles {
		m := re.FindStringSubmatch(s)
		if m == nil {
			continue
		}
		switch name := m[1]; {
		case name == "PM2":
			return "pm2"
		case strings.HasPrefix(name, "/"):
			return c.project(name, path.Base(name))
		default:
			return c.application(name)
		}
	}
	if directoryTitles.MatchString(s) {
		program, _, _ := strings.Cut(s, " ")
		return c.project(c.cwd(), strings.TrimSuffix(program, ":"))
	}
	// A name of the program's own choice, such as process.title in Node.
	if word, _, _ := strings.Cut(s, " "); len(s) == len(word) && !strings.Contains(s, "/") &&
		interpreters[interpreterName(s)].name == nil {
		return strings.TrimSuffix(s, ":")
	}
	return ""
}

// generic are names of scripts and modules that say nothing of what they do: their directory says more.
var generic = set("index", "main", "app", "server", "manage", "__main__", "__init__", "run", "start",
	"wsgi", "asgi", "application", "www", "bootstrap", "entrypoint", "program", "router", "config")

// genericDirs are directories that are part of every project or of every machine.
var genericDirs = set("src", "app", "apps", "bin", "sbin", "lib", "lib64", "libexec", "dist", "build", "out",
	"target", "output", "code", "server", "public", "web", "www", "html", "htdocs", "current", "releases", "release",
	"debug", "site-packages", "dist-packages", "node_modules", "scripts", "cmd", "main", "java", "resources", "work",
	"workdir", "workspace", "project", "usr", "local", "opt", "srv", "var", "home", "root", "mnt", "data", "etc", "run",
	"proc", "dev", "media", "share", "venv", "env", "application", "libs", "classes", "wwwroot")

func set(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[n] = true
	}
	return m
}

// directory is the nearest name above a file that means something, or empty: "shop" for
// /srv/shop/src/index.js and for /var/www/shop/releases/20240131/index.js.
func directory(dir string) string {
	dir = path.Clean(dir)
	if !path.IsAbs(dir) || dir == "/tmp" || strings.HasPrefix(dir, "/tmp/") || strings.HasPrefix(dir, "/var/tmp/") ||
		strings.HasPrefix(dir, "/dev/shm/") {
		return "" // names of temporary directories are accidents
	}
	for range 5 {
		parent, name := path.Split(dir)
		if name == "" || parent == "/home/" {
			return "" // the root, or a user's name
		}
		if !genericDirs[name] && name[0] != '.' && strings.ContainsFunc(name, isLetter) && !versionedDir.MatchString(name) {
			return name
		}
		dir = path.Clean(parent)
	}
	return ""
}

// versionedDir is v1.2.3, a date, or the hash of a commit.
var versionedDir = regexp.MustCompile(`^(?:v?\d[\w.-]*|[0-9a-f]{12,64})$`)

func isLetter(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r > 127 }

// project names what lives in dir, or is called name otherwise.
func (c command) project(dir, name string) string {
	if d := directory(dir); d != "" {
		return d
	}
	return name
}

// absolute is a path of the command line from the root.
func (c command) absolute(file string) string {
	if path.IsAbs(file) {
		return path.Clean(file)
	}
	return path.Join(c.cwd(), file) // relative where the working directory is not known
}

// extensions of scripts, which are no part of a name.
var extensions = set(".py", ".pyc", ".pyz", ".pyw", ".pex", ".js", ".mjs", ".cjs", ".ts", ".mts", ".cts", ".tsx", ".jsx",
	".rb", ".ru", ".php", ".phar", ".pl", ".psgi", ".sh", ".bash", ".dll", ".exe", ".jar", ".war", ".java")

// stem is a script's name without directory and extension.
func stem(file string) string {
	base := path.Base(file)
	if ext := path.Ext(base); extensions[ext] && ext != base {
		return strings.TrimSuffix(base, ext)
	}
	return base
}

// file names a script: by its own name, or where that is generic by its directory's.
func (c command) file(file string) string {
	name := stem(file)
	if generic[strings.ToLower(name)] {
		return c.project(path.Dir(c.absolute(file)), name)
	}
	return name
}

// application names what MODULE:CALLABLE stands for: "shop" for shop.wsgi:app. A generic module is named
// by the directory.
func (c command) application(s string) string {
	module, _, _ := strings.Cut(s, ":")
	if strings.Contains(module, "/") || extensions[path.Ext(module)] {
		return c.file(module)
	}
	parts := strings.Split(module, ".")
	for len(parts) > 0 && generic[strings.ToLower(parts[len(parts)-1])] {
		parts = parts[:len(parts)-1]
	}
	if len(parts) > 0 {
		return strings.Join(parts, ".")
	}
	first, _, _ := strings.Cut(module, ".")
	return c.project(c.cwd(), first)
}

// arguments is a command line as options and the rest. Options named in alone take no value; of the
// others, -x VALUE and --long VALUE do, and --long=VALUE is one word.
type arguments struct {
	args  []string
	alone map[string]bool
}

// option is the value of the first of the names that is given.
func (a arguments) option(names ...string) string {
	for n, arg := range a.args {
		name, value, joined := strings.Cut(arg, "=")
		switch {
		case !slices.Contains(names, name):
			for _, short := range names { // -Ashop
				if len(short) == 2 && len(arg) > 2 && strings.HasPrefix(arg, short) {
					return arg[2:]
				}
			}
		case joined:
			return value
		case n+1 < len(a.args):
			return a.args[n+1]
		}
	}
	return ""
}

// positional is the first argument that is no option nor an option's value, and what follows it.
func (a arguments) positional() (string, []string) {
	for n := 0; n < len(a.args); n++ {
		arg := a.args[n]
		switch {
		case arg == "--":
			if n+1 < len(a.args) {
				return a.args[n+1], a.args[n+2:]
			}
			return "", nil
		case !strings.HasPrefix(arg, "-") || arg == "-":
			return arg, a.args[n+1:]
		case strings.Contains(arg, "=") || a.alone[arg] || strings.HasPrefix(arg, "--no-"):
		case len(arg) > 2 && arg[1] != '-': // -w4
		default:
			n++
		}
	}
	return "", nil
}

// Python

var moduleCallable = regexp.MustCompile(`^[A-Za-z_][\w./]*:[A-Za-z_][\w.]*(?:\(.*\))?$`)

// python reads the interpreter's options.
// https://docs.python.org/3/using/cmdline.html
func (c command) python(args []string) string {
	for n := 0; n < len(args); n++ {
		arg := args[n]
		switch {
		case arg == "-":
			return directory(c.cwd())
		case strings.HasPrefix(arg, "--"):
			if arg == "--check-hash-based-pycs" {
				n++
			}
			continue
		case !strings.HasPrefix(arg, "-"):
			return c.pythonScript(arg, args[n+1:])
		}
		// Options of one letter may be joined; the first that takes a value takes the rest.
		i := strings.IndexAny(arg, "mcWX")
		if i < 0 {
			continue
		}
		value, rest := arg[i+1:], args[n+1:]
		if value == "" && len(rest) > 0 {
			value, rest = rest[0], rest[1:]
			n++
		}
		switch arg[i] {
		case 'm':
			return c.pythonModule(value, rest)
		case 'c':
			return directory(c.cwd())
		}
	}
	return ""
}

func (c command) pythonModule(module string, args []string) string {
	if launch, ok := pythonLaunchers[module]; ok {
		if name := launch(c, args); name != "" {
			return name
		}
		return c.project(c.cwd(), module)
	}
	name := strings.TrimSuffix(module, ".__main__")
	name = strings.TrimSuffix(name, ".main")
	if generic[name] {
		return c.project(c.cwd(), name)
	}
	return name
}

func (c command) pythonScript(file string, args []string) string {
	name := stem(file)
	if launch, ok := pythonLaunchers[nameVersion.ReplaceAllString(name, "")]; ok {
		if app := launch(c, args); app != "" {
			return app
		}
		return c.project(c.cwd(), name)
	}
	return c.file(file)
}

var pythonLaunchers map[string]func(c command, args []string) string

func init() { // a literal would be a cycle: some start others
	server := command.asgi
	pythonLaunchers = map[string]func(command, []string) string{
		"gunicorn": command.gunicorn, "uvicorn": server, "hypercorn": server, "daphne": server, "granian": server,
		"waitress-serve": server, "waitress": server, "flask": command.flask, "celery": command.celery,
		"uwsgi": command.uwsgi, "pyuwsgi": command.uwsgi, "django-admin": command.django,
		"fastapi": command.second, "streamlit": command.second, "litestar": command.asgi,
		"ddtrace-run": command.wrapped, "opentelemetry-instrument": command.wrapped, "newrelic-admin": command.wrapped,
	}
}

var asgiFlags = set("--reload", "--proxy-headers", "--use-colors", "--factory", "--preload", "--daemon", "-D",
	"--check-config", "--spew", "--print-config", "--capture-output", "--enable-stdio-inheritance", "-R", "--reuse-port",
	"--debug", "--access-log", "--no-sendfile", "--call", "--version", "-v", "--proxy-protocol", "--expose-tracebacks")

// asgi is the application that a server is told to run.
func (c command) asgi(args []string) string {
	app, _ := arguments{args, asgiFlags}.positional()
	if app == "" || !moduleCallable.MatchString(app) {
		for _, a := range args { // behind an option that is not known
			if moduleCallable.MatchString(a) {
				app = a
				break
			}
		}
	}
	if app == "" {
		return ""
	}
	return c.application(app)
}

func (c command) gunicorn(args []string) string {
	a := arguments{args, asgiFlags}
	if name := a.option("-n", "--name"); name != "" {
		return name
	}
	if dir := a.option("--chdir"); dir != "" {
		dir = c.absolute(dir)
		c.cwd = func() string { return dir }
	}
	return c.asgi(args)
}

func (c command) flask(args []string) string {
	app := arguments{args: args}.option("-A", "--app")
	if app == "" {
		app = c.env.flaskApp
	}
	if app == "" {
		return ""
	}
	return c.application(app)
}

func (c command) celery(args []string) string {
	if app := (arguments{args: args}).option("-A", "--app"); app != "" {
		return c.application(app)
	}
	return ""
}

func (c command) django(args []string) string {
	settings := arguments{args: args}.option("--settings")
	return strings.TrimSuffix(settings, ".settings")
}

// uwsgi is configured by options or by a file; either may name the application.
func (c command) uwsgi(args []string) string {
	a := arguments{args: args}
	if module := a.option("-w", "--module", "--wsgi"); module != "" {
		return c.application(module)
	}
	if file := a.option("--wsgi-file", "--file"); file != "" {
		return c.file(file)
	}
	for _, f := range []string{a.option("--ini"), a.option("--yaml"), a.option("--xml"), a.option("--json")} {
		if name := strings.TrimSuffix(path.Base(f), path.Ext(f)); f != "" && name != "uwsgi" {
			return name
		}
	}
	return directory(c.cwd())
}

// second is the file after a subcommand, as in "fastapi run shop.py".
func (c command) second(args []string) string {
	a := arguments{args, asgiFlags}
	_, rest := a.positional()
	file, _ := arguments{rest, asgiFlags}.positional()
	if file == "" {
		return ""
	}
	return c.file(file)
}

// wrapped is the program that a wrapper starts in its own process.
func (c command) wrapped(args []string) string {
	program, rest := arguments{args: args}.positional()
	if program == "" || interpreterName(path.Base(program)) == "python" {
		return c.python(rest)
	}
	return c.pythonScript(program, rest)
}

// Node

// nodeValues are the options of node whose value is a word of its own.
// https://nodejs.org/api/cli.html
var nodeValues = set("-r", "--require", "--import", "--loader", "--experimental-loader", "-C", "--conditions",
	"--env-file-if-exists", "--env-file", "--watch-path", "--icu-data-dir", "--openssl-config", "--title",
	"--diagnostic-dir", "--redirect-warnings", "--experimental-config-file", "--test-reporter", "--input-type",
	"-P", "--project") // the last two are ts-node's

var (
	// nodeRunners run the script that follows.
	nodeRunners = set("ts-node", "ts-node-dev", "ts-node-esm", "tsx", "nodemon", "babel-node", "node-dev", "swc-node",
		"esno", "pm2-runtime", "dotenv", "cross-env")
	// nodeProjects run the project in their working directory.
	nodeProjects = set("npm", "npm-cli", "npx", "npx-cli", "yarn", "pnpm", "next", "nuxt", "nuxi", "nest", "vite", "ng",
		"react-scripts", "remix", "remix-serve", "gatsby", "astro", "strapi", "ProcessContainerFork", "ProcessContainer")
)

func (c command) node(args []string) string {
	for n := 0; n < len(args); n++ {
		arg := args[n]
		switch {
		case arg == "-e", arg == "--eval", arg == "-p", arg == "--print", arg == "-pe", arg == "-":
			return c.packageName(c.cwd())
		case nodeValues[arg]:
			n++
		case strings.HasPrefix(arg, "-"):
		case arg == "inspect":
		default:
			return c.nodeScript(arg, args[n+1:])
		}
	}
	return ""
}

func (c command) nodeScript(file string, args []string) string {
	name := stem(file)
	switch {
	case nodeProjects[name]:
		if project := c.packageName(c.cwd()); project != "" {
			return project
		}
		return name
	case nodeRunners[name]:
		if script := c.node(args); script != "" {
			return script
		}
	case generic[name]:
		if d := c.packageName(path.Dir(c.absolute(file))); d != "" {
			return d
		}
	}
	if name == "." || name == ".." { // node .
		return c.packageName(c.absolute(file))
	}
	return name
}

// packageName names the project in or above a directory: by the directory, or, as in a container
// everything is in /app, by its package.json.
func (c command) packageName(dir string) string {
	if d := directory(dir); d != "" {
		return d
	}
	for range 3 {
		if !path.IsAbs(dir) {
			break
		}
		var manifest struct{ Name string }
		if json.Unmarshal(c.read(path.Join(dir, "package.json")), &manifest) == nil && manifest.Name != "" {
			return path.Base(manifest.Name) // without @scope/
		}
		dir = path.Dir(dir)
	}
	return ""
}

// deno names what deno and bun run: both take a subcommand, which bun lets one leave out.
func (c command) deno(args []string) string {
	file, rest := arguments{args, set("-A", "-q", "--watch", "--hot", "--smol", "--bun", "-b")}.denoScript()
	switch file {
	case "run", "serve", "x":
		file, _ = arguments{rest, nil}.denoScript()
	case "start", "dev", "task":
		return c.packageName(c.cwd())
	}
	if file == "" {
		return ""
	}
	return c.nodeScript(file, nil)
}

// denoScript is positional for programs whose options carry their values in the same word.
func (a arguments) denoScript() (string, []string) {
	for n, arg := range a.args {
		if !strings.HasPrefix(arg, "-") {
			return arg, a.args[n+1:]
		}
	}
	return "", nil
}

// Java

// javaValues are the options of java whose value is a word of its own.
// https://docs.oracle.com/en/java/javase/21/docs/specs/man/java.html
var javaValues = set("-cp", "-classpath", "--class-path", "-p", "--module-path", "--upgrade-module-path", "--add-modules",
	"--add-opens", "--add-exports", "--add-reads", "--patch-module", "--limit-modules", "--enable-native-access", "--source",
	"--describe-module", "-d")

// jarSuffix is what builds append to an artefact's name: its version and how it is packed.
var jarSuffix = regexp.MustCompile(`(?i)(?:[-_.]?v?\d+(?:\.\d+)+[\w.+-]*|[-_]v?\d+|[-_.](?:snapshot|release|final)|-(?:all|shaded|fat|exec|boot|uber|standalone|jar-with-dependencies|runner))$`)

func (c command) java(args []string) string {
	for _, arg := range args {
		for _, property := range []string{"-Dotel.service.name=", "-Dspring.application.name=", "--spring.application.name="} {
			if name, ok := strings.CutPrefix(arg, property); ok && name != "" {
				return name
			}
		}
	}
	for n := 0; n < len(args); n++ {
		arg := args[n]
		switch {
		case arg == "-jar" && n+1 < len(args):
			return c.jar(args[n+1])
		case (arg == "-m" || arg == "--module") && n+1 < len(args):
			return c.mainClass(args[n+1])
		case strings.HasPrefix(arg, "--module="):
			return c.mainClass(strings.TrimPrefix(arg, "--module="))
		case javaValues[arg]:
			n++
		case strings.HasPrefix(arg, "-"), strings.HasPrefix(arg, "@"):
		case path.Ext(arg) == ".java":
			return c.file(arg)
		default:
			return c.mainClass(arg)
		}
	}
	return ""
}

func (c command) jar(file string) string {
	name := stem(file)
	for {
		shorter := jarSuffix.ReplaceAllString(name, "")
		if shorter == name || shorter == "" {
			break
		}
		name = shorter
	}
	if generic[strings.ToLower(name)] {
		return c.project(path.Dir(c.absolute(file)), name)
	}
	return name
}

// mainClasses are those of launchers that say nothing of what they launch.
var mainClasses = map[string]string{
	"org.apache.catalina.startup.Bootstrap": "tomcat",
	"kafka.Kafka":                           "kafka",
}

func (c command) mainClass(class string) string {
	if module, in, ok := strings.Cut(class, "/"); ok {
		if class = in; class == "" {
			return module
		}
	}
	if strings.HasPrefix(class, "org.springframework.boot.loader.") {
		return c.project(c.cwd(), class[strings.LastIndexByte(class, '.')+1:])
	}
	if name, ok := mainClasses[class]; ok {
		return name
	}
	return class
}

// Ruby

var rubyServers = set("puma", "unicorn", "unicorn_rails", "rackup", "rails", "thin", "passenger", "sidekiq", "falcon",
	"resque", "rake", "shotgun", "webrick", "spring", "bundle", "bundler", "foreman", "pitchfork")

func (c command) ruby(args []string) string {
	script, rest := arguments{args, set("-w", "-W", "-v", "-d", "-n", "-a", "-l", "-s", "-S", "--jit", "--yjit", "--disable-gems",
		"--verbose", "--debug", "-y", "--enable-frozen-string-literal")}.positional()
	for _, a := range args[:len(args)-len(rest)] {
		if a == "-e" {
			return directory(c.cwd())
		}
	}
	name := stem(script)
	switch {
	case script == "" || script == "-":
		return directory(c.cwd())
	case (name == "bundle" || name == "bundler") && len(rest) > 1 && rest[0] == "exec":
		return c.ruby(rest[1:])
	case rubyServers[name]:
		return c.project(c.cwd(), name)
	}
	return c.file(script)
}

// PHP

func (c command) php(args []string) string {
	a := arguments{args, set("-a", "-C", "-e", "-l", "-m", "-n", "-q", "-i", "-v", "-H", "-s", "-w")}
	if slices.ContainsFunc(args, func(s string) bool { return strings.HasPrefix(s, "-S") }) {
		// The built-in server: a router script, a document root, or the working directory.
		if root := a.option("-t"); root != "" {
			return c.project(c.absolute(root), "php")
		}
		if router, _ := a.positional(); router != "" {
			return c.file(router)
		}
		return directory(c.cwd())
	}
	script := a.option("-f")
	if script == "" {
		script, _ = a.positional()
	}
	switch name := stem(script); {
	case script == "":
		return directory(c.cwd())
	case name == "artisan" || name == "console":
		return c.project(c.cwd(), name)
	}
	return c.file(script)
}

// .NET, and others

func (c command) dotnet(args []string) string {
	file, rest := arguments{args: args}.positional()
	switch file {
	case "exec":
		file, _ = arguments{args: rest}.positional()
	case "run", "watch", "test", "build":
		if project := (arguments{args: rest}).option("-p", "--project"); project != "" {
			return strings.TrimSuffix(path.Base(project), path.Ext(project))
		}
		return c.project(c.cwd(), "dotnet")
	}
	if file == "" {
		return ""
	}
	return c.file(file)
}

// script is for interpreters of which only the script matters.
func (c command) script(args []string) string {
	for _, arg := range args {
		if arg == "-c" || arg == "-e" {
			return ""
		}
		if !strings.HasPrefix(arg, "-") {
			return c.file(arg)
		}
	}
	return ""
}

// erlang finds the node's name, which a release takes from the application's.
func (c command) erlang(args []string) string {
	name := arguments{args: args}.option("-sname", "-name", "--sname", "--name")
	name, _, _ = strings.Cut(name, "@")
	return name
}
