// SPDX-License-Identifier: Apache-2.0
// A grpc-java server that makes calls for each request, with stubs that block. It knows nothing of tracing.
//
// It answers any method. /SHAPE/ID makes the gRPC calls /call/ID/0 and /call/ID/1 to GRPC_BACKEND on a connection that all share,
// and GET BACKEND/call/ID/2.
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.HandlerRegistry;
import io.grpc.ManagedChannelBuilder;
import io.grpc.MethodDescriptor;
import io.grpc.ServerMethodDefinition;
import io.grpc.Status;
import io.grpc.netty.NettyServerBuilder;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.ServerCalls;
import io.grpc.stub.StreamObserver;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.net.HttpURLConnection;
import java.net.InetSocketAddress;
import java.net.URI;
import java.util.concurrent.ThreadLocalRandom;

public class GrpcApp {
	static final String backend = System.getenv("BACKEND");
	static final Channel channel = ManagedChannelBuilder.forTarget(System.getenv("GRPC_BACKEND")).usePlaintext().build();

	static class Bytes implements MethodDescriptor.Marshaller<byte[]> {
		@Override
		public InputStream stream(byte[] message) {
			return new ByteArrayInputStream(message);
		}

		@Override
		public byte[] parse(InputStream message) {
			try {
				return message.readAllBytes();
			} catch (IOException e) {
				throw new UncheckedIOException(e);
			}
		}
	}

	static MethodDescriptor<byte[], byte[]> method(String name) {
		return MethodDescriptor.newBuilder(new Bytes(), new Bytes()).setType(MethodDescriptor.MethodType.UNARY)
				.setFullMethodName(name).build();
	}

	static void call(String id, int n) throws IOException, InterruptedException {
		Thread.sleep(ThreadLocalRandom.current().nextInt(3));
		String path = "call/" + id + "/" + n;
		if (n < 2) {
			ClientCalls.blockingUnaryCall(channel, method(path), CallOptions.DEFAULT, new byte[0]);
			return;
		}
		HttpURLConnection c = (HttpURLConnection) URI.create(backend + "/" + path).toURL().openConnection();
		try (InputStream in = c.getInputStream()) {
			in.readAllBytes();
		}
	}

	static void serve(String name, StreamObserver<byte[]> answer) {
		String[] path = name.split("/");
		if (!path[0].equals("sequence")) {
			answer.onError(Status.UNIMPLEMENTED.asRuntimeException());
			return;
		}
		try {
			for (int n = 0; n < 3; n++)
				call(path[1], n);
		} catch (IOException | InterruptedException e) {
			answer.onError(e);
			return;
		}
		answer.onNext(new byte[0]);
		answer.onCompleted();
	}

	static class AnyMethod extends HandlerRegistry {
		@Override
		public ServerMethodDefinition<?, ?> lookupMethod(String name, String authority) {
			return ServerMethodDefinition.create(method(name),
					ServerCalls.asyncUnaryCall((byte[] request, StreamObserver<byte[]> answer) -> serve(name, answer)));
		}
	}

	public static void main(String[] args) throws Exception {
		NettyServerBuilder.forAddress(new InetSocketAddress("127.0.0.1", Integer.parseInt(System.getenv("PORT"))))
				.fallbackHandlerRegistry(new AnyMethod()).build().start().awaitTermination();
	}
}
