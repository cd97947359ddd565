// SPDX-License-Identifier: Apache-2.0
// A Netty server that makes calls for each request with a Netty client on the same event loop. It knows nothing of tracing.
import io.netty.bootstrap.Bootstrap;
import io.netty.bootstrap.ServerBootstrap;
import io.netty.buffer.Unpooled;
import io.netty.channel.Channel;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInitializer;
import io.netty.channel.ChannelOption;
import io.netty.channel.EventLoop;
import io.netty.channel.SimpleChannelInboundHandler;
import io.netty.channel.nio.NioEventLoopGroup;
import io.netty.channel.socket.nio.NioServerSocketChannel;
import io.netty.channel.socket.nio.NioSocketChannel;
import io.netty.handler.codec.http.DefaultFullHttpRequest;
import io.netty.handler.codec.http.DefaultFullHttpResponse;
import io.netty.handler.codec.http.FullHttpRequest;
import io.netty.handler.codec.http.FullHttpResponse;
import io.netty.handler.codec.http.HttpClientCodec;
import io.netty.handler.codec.http.HttpMethod;
import io.netty.handler.codec.http.HttpObjectAggregator;
import io.netty.handler.codec.http.HttpResponseStatus;
import io.netty.handler.codec.http.HttpServerCodec;
import io.netty.handler.codec.http.HttpVersion;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.util.ArrayDeque;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;

public class NettyApp {
	static final URI backend = URI.create(System.getenv("BACKEND"));
	static final NioEventLoopGroup loops = new NioEventLoopGroup(2);
	// Connections that are not in use, of each loop.
	static final ThreadLocal<ArrayDeque<Channel>> idle = ThreadLocal.withInitial(ArrayDeque::new);

	static class Answer extends SimpleChannelInboundHandler<FullHttpResponse> {
		Runnable then;

		@Override
		protected void channelRead0(ChannelHandlerContext ctx, FullHttpResponse response) {
			idle.get().push(ctx.channel());
			then.run();
		}
	}

	static void send(Channel channel, String path, Runnable then) {
		channel.pipeline().get(Answer.class).then = then;
		FullHttpRequest request = new DefaultFullHttpRequest(HttpVersion.HTTP_1_1, HttpMethod.GET, path);
		request.headers().set("Host", backend.getAuthority());
		channel.writeAndFlush(request);
	}

	static void call(EventLoop loop, String path, Runnable then) {
		Channel channel = idle.get().poll();
		if (channel != null) {
			send(channel, path, then);
			return;
		}
		new Bootstrap().group(loop).channel(NioSocketChannel.class).handler(new ChannelInitializer<Channel>() {
			@Override
			protected void initChannel(Channel c) {
				c.pipeline().addLast(new HttpClientCodec(), new HttpObjectAggregator(65536), new Answer());
			}
		}).connect(backend.getHost(), backend.getPort()).addListener((io.netty.channel.ChannelFuture f) -> send(f.channel(), path, then));
	}

	static void pause(EventLoop loop, boolean timers, Runnable then) {
		if (timers)
			loop.schedule(then, ThreadLocalRandom.current().nextInt(3000), TimeUnit.MICROSECONDS);
		else
			then.run();
	}

	static class Serve extends SimpleChannelInboundHandler<FullHttpRequest> {
		@Override
		protected void channelRead0(ChannelHandlerContext ctx, FullHttpRequest request) {
			String[] path = request.uri().split("/");
			boolean timers = path[1].equals("timer");
			EventLoop loop = ctx.channel().eventLoop();
			pause(loop, timers, () -> call(loop, "/call/" + path[2] + "/0", () -> pause(loop, timers, () -> call(loop, "/call/" + path[2] + "/1", () -> {
				FullHttpResponse response = new DefaultFullHttpResponse(HttpVersion.HTTP_1_1, HttpResponseStatus.OK,
						Unpooled.copiedBuffer("done\n", StandardCharsets.US_ASCII));
				response.headers().set("Content-Length", 5);
				ctx.writeAndFlush(response);
			}))));
		}
	}

	public static void main(String[] args) throws Exception {
		new ServerBootstrap().group(loops).channel(NioServerSocketChannel.class).option(ChannelOption.SO_BACKLOG, 511)
				.childHandler(new ChannelInitializer<Channel>() {
					@Override
					protected void initChannel(Channel c) {
						c.pipeline().addLast(new HttpServerCodec(), new HttpObjectAggregator(65536), new Serve());
					}
				}).bind("127.0.0.1", Integer.parseInt(System.getenv("PORT"))).sync();
	}
}
