// SPDX-License-Identifier: Apache-2.0

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.OutputStream;
import java.net.InetSocketAddress;
import java.util.concurrent.Executors;

/** An ordinary jdk.httpserver with a pool of threads. It knows nothing of tracing. */
public class ItemServer {
    public static void main(String[] args) throws IOException {
        int port = Integer.parseInt(System.getenv("PORT"));
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 128);
        server.createContext("/", ItemServer::handle);
        server.setExecutor(Executors.newFixedThreadPool(8));
        server.start();
    }

    private static void handle(HttpExchange exchange) throws IOException {
        String[] path = exchange.getRequestURI().getPath().split("/");
        switch (path.length > 2 ? path[1] : "") {
            case "item" -> answer(exchange, 200, "item " + path[2] + "\n");
            case "upload" -> answer(exchange, 200, exchange.getRequestBody().readAllBytes().length + "\n");
            case "status" -> answer(exchange, Integer.parseInt(path[2]), "");
            case "sleep" -> {
                try {
                    Thread.sleep(Long.parseLong(path[2]));
                } catch (InterruptedException e) {
                    Thread.currentThread().interrupt();
                }
                answer(exchange, 200, "slept\n");
            }
            case "chunked" -> {
                exchange.sendResponseHeaders(200, 0);
                try (OutputStream out = exchange.getResponseBody()) {
                    for (int i = 0; i < Integer.parseInt(path[2]); i++) {
                        out.write(("chunk " + i + "\n").getBytes());
                        out.flush();
                    }
                }
            }
            default -> answer(exchange, 404, "not found\n");
        }
    }

    private static void answer(HttpExchange exchange, int code, String text) throws IOException {
        byte[] body = text.getBytes();
        boolean empty = body.length == 0 || exchange.getRequestMethod().equals("HEAD");
        exchange.sendResponseHeaders(code, empty ? -1 : body.length);
        if (!empty) {
            exchange.getResponseBody().write(body);
        }
        exchange.close();
    }
}
