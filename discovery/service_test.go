// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestServiceIsNamedByWhatRuns(t *testing.T) {
	const (
		py   = "/usr/bin/python3.11"
		node = "/usr/bin/node"
		java = "/usr/lib/jvm/java-17-openjdk-amd64/bin/java"
		ruby = "/usr/bin/ruby3.1"
		php  = "/usr/bin/php8.2"
		net  = "/usr/share/dotnet/dotnet"
	)
	for _, tt := range []struct {
		exe, cmdline, cwd, want string // words; what follows | is one argument, and a | at the end says that all is
	}{
		// Python
		{py, "python3 stock.py", "/srv/shop", "stock"},
		{py, "python3 -u -X dev /srv/shop/stock.py --port 80", "/", "stock"},
		{py, "python3 app.py", "/tmp/x", "app"},
		{py, "python3 app.py", "/srv/stock", "stock"},
		{py, "python3 app.py", "", "app"},
		{py, "python3 /srv/stock/src/main.py", "/", "stock"},
		{py, "python3 /app/main.py", "/app", "main"},
		{py, "python3 /var/www/stock/releases/20240131120000/app.py", "/", "stock"},
		{py, "python3 manage.py runserver 0:8000", "/home/alice/stock", "stock"},
		{py, "python3 main.py", "/home/alice", "main"},
		{py, "python3 -m http.server 8000", "/srv", "http.server"},
		{py, "python3 -mhttp.server", "/srv", "http.server"},
		{py, "python3 -um stock --debug", "/srv", "stock"},
		{py, "python3 -m stock.__main__", "/srv", "stock"},
		{py, "python3 -m stock.main", "/srv", "stock"},
		{py, "python3 -m app", "/srv/stock", "stock"},
		{py, "python3 -W ignore -m uvicorn stock.main:app --reload", "/app", "stock"},
		{py, "python3 -c|import time; time.sleep(1)", "/srv/stock", "stock"},
		{py, "python3 -c|import time; time.sleep(1)", "/", "python"},
		{py, "python3", "/", "python"},
		{py, "python3 -", "/", "python"},
		{py, "python3 --check-hash-based-pycs always stock.py", "/", "stock"},
		{py, "/usr/bin/python3 /usr/bin/gunicorn shop.wsgi:app", "/srv/x", "shop"},
		{py, "/usr/bin/python3 /usr/bin/gunicorn -w 4 -b 0.0.0.0:80 shop.wsgi", "/srv/x", "shop"},
		{py, "/usr/bin/python3 /usr/bin/gunicorn --workers=4 --preload shop.web.wsgi:app -k gevent", "/srv/x", "shop.web"},
		{py, "/usr/bin/python3 /usr/bin/gunicorn -n stock-api wsgi:app", "/srv/x", "stock-api"},
		{py, "/usr/bin/python3 /usr/bin/gunicorn app:app", "/srv/stock", "stock"},
		{py, "/usr/bin/python3 /usr/bin/gunicorn app:app", "/app", "app"},
		{py, "/usr/bin/python3 /usr/bin/gunicorn --chdir /srv/orders app:app", "/srv/stock", "orders"},
		{py, "/usr/bin/python3 /usr/bin/gunicorn|app:create_app('prod')", "/srv/stock", "stock"},
		{py, "/usr/bin/python3 /usr/bin/gunicorn --print-this x shop:app", "/srv/stock", "shop"},
		{py, "/usr/bin/python3 /usr/bin/gunicorn -c gunicorn.conf.py", "/srv/stock", "stock"},
		{py, "gunicorn: worker [shop]|", "/srv/x", "shop"},
		{py, "gunicorn: master [shop.wsgi:app]|", "/srv/x", "shop"},
		{py, "/usr/bin/python3 /usr/local/bin/uvicorn main:app --host 0.0.0.0", "/srv/stock", "stock"},
		{py, "/usr/bin/python3 /usr/local/bin/uvicorn --host 0.0.0.0 --port 80 stock.main:app", "/app", "stock"},
		{py, "/usr/bin/python3 /usr/local/bin/hypercorn stock:app", "/app", "stock"},
		{py, "/usr/bin/python3 /usr/bin/flask --app stock run", "/app", "stock"},
		{py, "/usr/bin/python3 /usr/bin/flask --app=stock/web.py run", "/app", "web"},
		{py, "/usr/bin/python3 /usr/bin/flask run", "/srv/stock", "stock"},
		{py, "/usr/bin/python3 /usr/bin/celery -A shop worker -l info", "/app", "shop"},
		{py, "/usr/bin/python3 /usr/bin/celery --app=shop.tasks worker", "/app", "shop.tasks"},
		{py, "[celeryd: celery@host:MainProcess] -active- (worker -A shop)|", "/app", "shop"},
		{py, "/usr/bin/python3 /usr/bin/fastapi run stock.py", "/app", "stock"},
		{py, "/usr/bin/python3 /usr/bin/streamlit run /srv/board/app.py", "/", "board"},
		{py, "/usr/bin/python3 /usr/bin/opentelemetry-instrument gunicorn shop:app", "/app", "shop"},
		{py, "/usr/bin/python3 /usr/bin/ddtrace-run python stock.py", "/app", "stock"},
		{py, "/srv/shop/venv/bin/python /srv/shop/venv/bin/shop-api --port 80", "/", "shop-api"},
		{"/usr/bin/python3.13t", "python3.13t stock.py", "/", "stock"},
		{"/opt/pypy/bin/pypy3", "pypy3 stock.py", "/", "stock"},
		{"/usr/bin/uwsgi", "uwsgi --http :80 --module shop.wsgi", "/", "shop"},
		{"/usr/bin/uwsgi", "uwsgi --ini /etc/uwsgi/shop.ini", "/", "shop"},
		{"", "python3 stock.py", "", "stock"},
		// Node
		{node, "node gateway.js", "/", "gateway"},
		{node, "node --max-old-space-size=4096 -r dotenv/config --inspect dist/gateway.mjs", "/", "gateway"},
		{node, "node server.js", "/srv/gateway", "gateway"},
		{node, "node /srv/gateway/dist/index.js", "/", "gateway"},
		{node, "node ./bin/www", "/srv/gateway", "gateway"},
		{node, "node server.js", "/tmp/x/gateway", "server"},
		{node, "node index.js", "/usr/src/app", "from-manifest"},
		{node, "node .", "/srv/gateway", "gateway"},
		{node, "node -e|setInterval(()=>0,1)", "/srv/gateway", "gateway"},
		{node, "node -e|setInterval(()=>0,1)", "/", "node"},
		{node, "node", "/", "node"},
		{node, "node /srv/gateway/node_modules/.bin/next start", "/srv/gateway", "gateway"},
		{node, "node /usr/bin/npm run start", "/srv/gateway", "gateway"},
		{node, "npm run start|", "/srv/gateway", "gateway"},
		{node, "next-server (v14.1.0)|", "/srv/gateway", "gateway"},
		{node, "node node_modules/.bin/ts-node -P x.json src/gateway.ts", "/", "gateway"},
		{node, "node node_modules/.bin/tsx src/gateway.ts", "/", "gateway"},
		{node, "node /srv/gateway/server.js|", "/", "gateway"},
		{node, "PM2 v5.3.0: God Daemon (/root/.pm2)|", "/", "pm2"},
		{node, "shop-gateway|", "/", "shop-gateway"},
		{"/usr/bin/bun", "bun run src/gateway.ts", "/", "gateway"},
		{"/usr/bin/deno", "deno run --allow-net gateway.ts", "/", "gateway"},
		// Java
		{java, "java -jar orders-1.2.jar", "/", "orders"},
		{java, "java -Xmx1g -jar /opt/orders-service-0.0.1-SNAPSHOT.jar --server.port=80", "/", "orders-service"},
		{java, "java -jar /opt/orders-2.0.0.RELEASE-exec.jar", "/", "orders"},
		{java, "java -jar orders-1.2-jar-with-dependencies.jar", "/", "orders"},
		{java, "java -jar build/libs/orders-all.jar", "/", "orders"},
		{java, "java -jar /app/app.jar", "/app", "app"},
		{java, "java -jar app.jar", "/srv/orders", "orders"},
		{java, "java -jar log4j2.jar", "/", "log4j2"},
		{java, "java -cp /a.jar:/b.jar -Dx=y --add-opens java.base/java.lang=ALL-UNNAMED com.acme.Main x", "/", "com.acme.Main"},
		{java, "java -p mods -m com.acme/com.acme.Orders", "/", "com.acme.Orders"},
		{java, "java --module=com.acme.orders", "/", "com.acme.orders"},
		{java, "java Orders.java", "/", "Orders"},
		{java, "java -Dspring.application.name=orders -jar app.jar", "/", "orders"},
		{java, "java org.springframework.boot.loader.launch.JarLauncher", "/srv/orders", "orders"},
		{java, "java org.springframework.boot.loader.JarLauncher", "/app", "JarLauncher"},
		{java, "java -Dcatalina.home=/opt org.apache.catalina.startup.Bootstrap start", "/", "tomcat"},
		{java, "java @args", "/", "java"},
		// Ruby
		{ruby, "ruby stock.rb", "/", "stock"},
		{ruby, "ruby -w -I lib server.rb", "/srv/stock", "stock"},
		{ruby, "ruby -run -e httpd . -p 80", "/srv/stock", "stock"},
		{ruby, "ruby bin/rails server", "/srv/stock", "stock"},
		{ruby, "ruby /usr/bin/bundle exec puma -C config/puma.rb", "/srv/stock", "stock"},
		{ruby, "puma 6.4.0 (tcp://0.0.0.0:3000) [stock]|", "/x", "stock"},
		{ruby, "puma: cluster worker 0: 12 [stock]|", "/x", "stock"},
		{ruby, "puma 6.4.0 (tcp://0.0.0.0:3000)|", "/srv/stock", "stock"},
		{ruby, "sidekiq 7.1.2 stock [0 of 5 busy]|", "/x", "stock"},
		{ruby, "unicorn worker[0] -c unicorn.rb|", "/srv/stock", "stock"},
		{ruby, "Passenger RubyApp: /var/www/stock (production)|", "/", "stock"},
		// PHP
		{php, "php -S 0.0.0.0:80 router.php", "/srv/stock", "stock"},
		{php, "php -S 0.0.0.0:80 -t /srv/stock/public", "/", "stock"},
		{php, "php -S 0.0.0.0:80", "/srv/stock", "stock"},
		{php, "php stock.php", "/", "stock"},
		{php, "php artisan serve", "/srv/stock", "stock"},
		{"/usr/sbin/php-fpm8.2", "php-fpm: pool www|", "/", "php-fpm"},
		{"/usr/sbin/php-fpm8.2", "php-fpm: master process (/etc/php/8.2/fpm/php-fpm.conf)|", "/", "php-fpm"},
		// .NET
		{net, "dotnet Shop.Orders.dll --urls http://*:80", "/", "Shop.Orders"},
		{net, "dotnet exec /app/Shop.Orders.dll", "/", "Shop.Orders"},
		{net, "dotnet run --project src/Shop.Orders/Shop.Orders.csproj", "/", "Shop.Orders"},
		// Native
		{"/srv/bin/orders", "./orders --port 80", "/", "orders"},
		{"/app/server", "/app/server", "/app", "server"},
		{"/usr/sbin/nginx", "nginx: worker process|", "/", "nginx"},
		{"/usr/sbin/nginx", "nginx: master process /usr/sbin/nginx -g daemon off;|", "/", "nginx"},
		{"", "nginx: worker process|", "", "nginx"},
		{"/usr/lib/postgresql/15/bin/postgres", "postgres: 15/main: walwriter|", "/", "postgres"},
		{"/bin/busybox", "httpd -f -p 80", "/", "httpd"},
		{"/memfd:code", "/opt/orders --port 80", "/", "orders"},
		{"/memfd:code", "", "/", "memfd:code"},
		{"/usr/lib/erlang/erts-13/bin/beam.smp", "beam.smp -- -root /app -sname shop@host", "/", "shop"},
		// Scripts
		{"/bin/dash", "/bin/sh /entry.sh", "/", "entry"},
		{"/bin/dash", "/bin/sh -c|exec x", "/", "dash"},
		{"/bin/bash", "-bash|", "/", "bash"},
		{"/usr/bin/perl", "perl -w /srv/stock.pl", "/", "stock"},
		{"", "", "", "unknown_service"},
	} {
		words, last, split := strings.Cut(tt.cmdline, "|")
		args := strings.Fields(words)
		switch {
		case split && last == "": // a title
			args = []string{words}
		case split:
			args = append(args, last)
		}
		c := command{
			exe:  tt.exe,
			args: args,
			cwd:  func() string { return tt.cwd },
			read: func(name string) []byte {
				if name == "/usr/src/app/package.json" {
					return []byte(`{"name": "@acme/from-manifest"}`)
				}
				return nil
			},
		}
		if got := c.service(); got != tt.want {
			t.Errorf("%s: %q in %s: got %q, want %q", tt.exe, args, tt.cwd, got, tt.want)
		}
	}
}

func FuzzService(f *testing.F) {
	for _, seed := range []string{
		"/usr/bin/python3\x00python3\x00-um\x00x", "/usr/bin/python3\x00gunicorn: worker [x]", "/usr/bin/node\x00node\x00-r\x00x\x00.",
		"/usr/bin/java\x00java\x00-jar\x00-1.2.3.jar", "/usr/bin/ruby\x00ruby\x00bundle\x00exec\x00bundle\x00exec",
		"/usr/bin/php\x00php\x00-S", "/bin/busybox\x00", "\x00sh\x00-c", "/usr/bin/python3\x00python3\x00ddtrace-run\x00ddtrace-run\x00--",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		args := strings.Split(s, "\x00")
		c := command{
			exe:  args[0],
			args: args[1:],
			cwd:  func() string { return args[len(args)-1] },
			read: func(string) []byte { return []byte(s) },
		}
		name := c.service()
		if name == "" || !utf8.ValidString(name) || len(name) > 4*maxText {
			t.Errorf("service of %q is %q", s, name)
		}
		for _, e := range []string{"python3", "node", "java", "ruby", "php", "dotnet", "sh", "uwsgi", "deno"} {
			c.exe = "/usr/bin/" + e
			if c.service() == "" {
				t.Errorf("%s %q has no name", e, s)
			}
		}
	})
}
