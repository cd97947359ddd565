// SPDX-License-Identifier: Apache-2.0
// A gRPC server of C++ that makes calls for each request, with threads that block. It knows nothing of tracing.
//
// It answers any method. /SHAPE/ID makes the gRPC calls /call/ID/0 and /call/ID/1 to GRPC_BACKEND on a connection that all share,
// and GET BACKEND/call/ID/2.
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

static constexpr int THREADS = 64;

static std::unique_ptr<grpc::GenericStub> stub;
static std::string backend; // host:port

static grpc::ByteBuffer empty()
{
	grpc::Slice nothing;

	return grpc::ByteBuffer(&nothing, 1);
}

static bool invoke(const std::string &path)
{
	grpc::ClientContext context;
	grpc::CompletionQueue done;
	grpc::ByteBuffer response;
	grpc::Status status;
	void *tag;
	bool ok;

	auto call = stub->PrepareUnaryCall(&context, path, empty(), &done);
	call->StartCall();
	call->Finish(&response, &status, nullptr);
	return done.Next(&tag, &ok) && ok && status.ok();
}

static int dial()
{
	auto colon = backend.find(':');
	sockaddr_in addr = {};
	int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	addr.sin_family = AF_INET;
	addr.sin_port = htons(atoi(backend.c_str() + colon + 1));
	inet_pton(AF_INET, backend.substr(0, colon).c_str(), &addr.sin_addr);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (connect(fd, (sockaddr *)&addr, sizeof(addr))) {
		perror("connect");
		exit(1);
	}
	return fd;
}

// Each thread keeps its connection.
static bool get(const std::string &path)
{
	thread_local int fd = dial();
	const std::string request = "GET " + path + " HTTP/1.1\r\nHost: " + backend + "\r\n\r\n";
	std::string answer;
	size_t head, length;

	if (write(fd, request.data(), request.size()) != (ssize_t)request.size())
		return false;
	do {
		char text[4096];
		ssize_t n = read(fd, text, sizeof(text));

		if (n <= 0)
			return false;
		answer.append(text, n);
		head = answer.find("\r\n\r\n");
		length = answer.find("Content-Length: ");
	} while (head == std::string::npos || length > head ||
		 answer.size() < head + 4 + atoi(answer.c_str() + length + strlen("Content-Length: ")));
	return true;
}

static bool call(const std::string &id, int n)
{
	thread_local std::minstd_rand random(std::random_device{}());
	const std::string path = "/call/" + id + "/" + std::to_string(n);

	std::this_thread::sleep_for(std::chrono::microseconds(random() % 3000));
	return n < 2 ? invoke(path) : get(path);
}

static grpc::Status serve(const std::string &method)
{
	auto slash = method.find('/', 1);

	if (method.substr(1, slash - 1) != "sequence")
		return grpc::Status(grpc::StatusCode::UNIMPLEMENTED, method);
	for (int n = 0; n < 3; n++)
		if (!call(method.substr(slash + 1), n))
			return grpc::Status(grpc::StatusCode::UNAVAILABLE, method);
	return grpc::Status::OK;
}

// exchange is a request and its answer.
class exchange {
      public:
	exchange(grpc::AsyncGenericService *service, grpc::ServerCompletionQueue *queue) : service(service), queue(queue), stream(&context)
	{
		service->RequestCall(&context, &stream, queue, queue, this);
	}

	// proceed is called when what was asked for has come, or never will.
	void proceed(bool ok)
	{
		if (!ok || state == ANSWERED) {
			delete this;
			return;
		}
		if (state == WAITING) {
			new exchange(service, queue); // for the next
			state = ASKED;
			stream.Read(&request, this);
			return;
		}
		state = ANSWERED;
		const grpc::Status status = serve(context.method());
		if (status.ok())
			stream.WriteAndFinish(empty(), grpc::WriteOptions(), status, this);
		else
			stream.Finish(status, this);
	}

      private:
	enum { WAITING, ASKED, ANSWERED } state = WAITING;
	grpc::AsyncGenericService *service;
	grpc::ServerCompletionQueue *queue;
	grpc::GenericServerContext context;
	grpc::GenericServerAsyncReaderWriter stream;
	grpc::ByteBuffer request;
};

int main()
{
	grpc::AsyncGenericService service;
	grpc::ServerBuilder builder;
	std::vector<std::thread> threads;

	backend = getenv("BACKEND") + strlen("http://");
	stub = std::make_unique<grpc::GenericStub>(grpc::CreateChannel(getenv("GRPC_BACKEND"), grpc::InsecureChannelCredentials()));
	builder.AddListeningPort(std::string("127.0.0.1:") + getenv("PORT"), grpc::InsecureServerCredentials());
	builder.RegisterAsyncGenericService(&service);
	auto queue = builder.AddCompletionQueue();
	auto server = builder.BuildAndStart();
	if (!server)
		return 1;
	new exchange(&service, queue.get());
	for (int i = 0; i < THREADS; i++)
		threads.emplace_back([&queue] {
			void *tag;
			bool ok;

			while (queue->Next(&tag, &ok))
				static_cast<exchange *>(tag)->proceed(ok);
		});
	for (auto &thread : threads)
		thread.join();
}
