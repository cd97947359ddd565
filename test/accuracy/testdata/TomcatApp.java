// SPDX-License-Identifier: Apache-2.0
// A servlet in Tomcat that makes calls for each request, in ways that programs do. It knows nothing of tracing.
import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.io.InputStream;
import java.net.HttpURLConnection;
import java.net.URI;
import java.nio.file.Files;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.ThreadLocalRandom;
import org.apache.catalina.Context;
import org.apache.catalina.connector.Connector;
import org.apache.catalina.startup.Tomcat;

public class TomcatApp extends HttpServlet {
	static final String backend = System.getenv("BACKEND");
	static final ExecutorService jobs = Executors.newFixedThreadPool(16);

	static Void call(String id, int n) throws Exception {
		Thread.sleep(ThreadLocalRandom.current().nextInt(3));
		HttpURLConnection c = (HttpURLConnection) URI.create(backend + "/call/" + id + "/" + n).toURL().openConnection();
		try (InputStream in = c.getInputStream()) {
			in.readAllBytes();
		}
		return null;
	}

	@Override
	protected void doGet(HttpServletRequest request, HttpServletResponse response) throws IOException {
		String[] path = request.getRequestURI().split("/");
		try {
			for (int n = 0; n < 2; n++) {
				final int number = n;
				if (path[1].equals("pool"))
					jobs.submit(() -> call(path[2], number)).get();
				else
					call(path[2], number);
			}
		} catch (Exception e) {
			throw new IOException(e);
		}
		response.getWriter().println("done");
	}

	public static void main(String[] args) throws Exception {
		String base = Files.createTempDirectory("tomcat").toString();
		Tomcat tomcat = new Tomcat();
		tomcat.setBaseDir(base);
		Connector connector = new Connector();
		connector.setPort(Integer.parseInt(System.getenv("PORT")));
		connector.setProperty("address", "127.0.0.1");
		connector.setProperty("maxKeepAliveRequests", "-1");
		tomcat.setConnector(connector);
		Context context = tomcat.addContext("", base);
		Tomcat.addServlet(context, "app", new TomcatApp());
		context.addServletMappingDecoded("/*", "app");
		tomcat.start();
		tomcat.getServer().await();
	}
}
