// SPDX-License-Identifier: Apache-2.0
// A Java server that makes calls for each request, in ways that programs do. It knows nothing of tracing.
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executor;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.ThreadLocalRandom;

public class App {
	static final String backend = System.getenv("BACKEND");
	static final ExecutorService jobs = Executors.newFixedThreadPool(64);
	static final HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();

	static void call(String id, int n) {
		try {
			Thread.sleep(ThreadLocalRandom.current().nextInt(3));
			HttpURLConnection c = (HttpURLConnection) URI.create(backend + "/call/" + id + "/" + n).toURL().openConnection();
			try (InputStream in = c.getInputStream()) {
				in.readAllBytes();
			}
		} catch (IOException | InterruptedException e) {
			throw new RuntimeException(e);
		}
	}

	static void serve(HttpExchange x) throws IOException {
		String[] path = x.getRequestURI().getPath().split("/");
		String id = path[2];
		try {
			switch (path[1]) {
			case "inline":
				call(id, 0);
				call(id, 1);
				break;
			case "submit":
				for (int n = 0; n < 2; n++) {
					int number = n;
					jobs.submit(() -> call(id, number)).get();
				}
				break;
			case "parallel":
				Future<?> first = jobs.submit(() -> call(id, 0)), second = jobs.submit(() -> call(id, 1));
				first.get();
				second.get();
				break;
			case "completable":
				CompletableFuture.runAsync(() -> call(id, 0), jobs).thenRunAsync(() -> call(id, 1), jobs).join();
				break;
			case "httpclient":
				for (int n = 0; n < 2; n++)
					client.send(HttpRequest.newBuilder(URI.create(backend + "/call/" + id + "/" + n)).build(),
							HttpResponse.BodyHandlers.ofString());
				break;
			}
		} catch (Exception e) {
			throw new RuntimeException(e);
		}
		byte[] body = "done\n".getBytes();
		x.sendResponseHeaders(200, body.length);
		x.getResponseBody().write(body);
		x.close();
	}

	public static void main(String[] args) throws Exception {
		System.setProperty("http.maxConnections", "128");
		Executor threads = Executors.newFixedThreadPool(64);
		if (args.length > 0 && args[0].equals("virtual"))
			threads = (Executor) Executors.class.getMethod("newVirtualThreadPerTaskExecutor").invoke(null);
		HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", Integer.parseInt(System.getenv("PORT"))), 128);
		server.createContext("/", App::serve);
		server.setExecutor(threads);
		server.start();
	}
}
