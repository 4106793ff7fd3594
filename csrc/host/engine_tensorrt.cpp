// Plans of TensorRT 10 and 11, executed on a GPU.  Never executed so far: compiled against the headers
// alone, as neither the library nor a GPU was at hand.
#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <mutex>

#include "engine.h"
#include "error.h"

namespace dtg::host {
namespace {

// Keeps the last error, which is all that TensorRT says of a failure.
class Logger : public nvinfer1::ILogger {
  public:
    void log(Severity severity, const char* message) noexcept override {
        if (severity > Severity::kERROR) return;
        const std::lock_guard<std::mutex> guard(mutex_);
        last_ = message;
    }
    std::string last() {
        const std::lock_guard<std::mutex> guard(mutex_);
        return last_;
    }

  private:
    std::mutex mutex_;
    std::string last_;
};

Logger& logger() {
    static Logger only;
    return only;
}

void require(bool done, const std::string& what) {
    if (!done) engine_error("TensorRT cannot " + what + ": " + logger().last());
}

void require(cudaError_t status) {
    if (status == cudaErrorMemoryAllocation) throw Error(DTG_MEMORY, "the GPU's memory does not suffice");
    if (status != cudaSuccess) engine_error(std::string("CUDA: ") + cudaGetErrorString(status));
}

nvinfer1::DataType data_type(Type type) {
    switch (type) {
        case Type::kFloat16:
            return nvinfer1::DataType::kHALF;
        case Type::kBFloat16:
            return nvinfer1::DataType::kBF16;
        case Type::kInt64:
            return nvinfer1::DataType::kINT64;
        default:
            return nvinfer1::DataType::kFLOAT;
    }
}

// Memory on the device that grows as it is asked for.
class Buffer {
  public:
    Buffer() = default;
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() { cudaFree(data_); }
    void* of(std::size_t bytes) {
        if (bytes > size_) {
            require(cudaFree(data_));
            data_ = nullptr, size_ = 0;
            require(cudaMalloc(&data_, bytes));
            size_ = bytes;
        }
        return data_;
    }

  private:
    void* data_ = nullptr;
    std::size_t size_ = 0;
};

class TensorRtEngine : public Engine {
  public:
    TensorRtEngine(const std::string& path, const Component& component, const Place& place)
        : Engine(component), device_(place.device_index) {
        std::ifstream file(path, std::ios::binary);
        const std::vector<char> plan{std::istreambuf_iterator<char>(file), {}};
        require(cudaSetDevice(device_));
        runtime_.reset(nvinfer1::createInferRuntime(logger()));
        require(runtime_ != nullptr, "start");
        runtime_->setEngineHostCodeAllowed(true);  // of version-compatible plans
        engine_.reset(runtime_->deserializeCudaEngine(plan.data(), plan.size()));
        require(engine_ != nullptr, "read the plan " + path);
        context_.reset(engine_->createExecutionContext());
        require(context_ != nullptr, "prepare the plan " + path);
        for (const auto* side : {&component.inputs, &component.outputs}) {
            for (const TensorSpec& spec : *side) {
                if (engine_->getTensorDataType(spec.name.c_str()) != data_type(spec.type)) {
                    engine_error(path + " is not what the bundle says: " + spec.name +
                                 " is of another type");
                }
            }
        }
        require(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    }

    ~TensorRtEngine() override {
        if (stream_) cudaStreamDestroy(stream_);
    }

  protected:
    std::vector<Tensor> run(const std::vector<const Tensor*>& inputs) override {
        require(cudaSetDevice(device_));
        for (std::size_t i = 0; i < inputs.size(); ++i) {
            const std::string& name = component_.inputs[i].name;
            nvinfer1::Dims shape{};
            shape.nbDims = static_cast<std::int32_t>(inputs[i]->shape().size());
            std::copy(inputs[i]->shape().begin(), inputs[i]->shape().end(), shape.d);
            require(context_->setInputShape(name.c_str(), shape), "take the shape of " + name);
            void* const place = bind(name, inputs[i]->bytes());
            require(cudaMemcpyAsync(place, inputs[i]->data(), inputs[i]->bytes(),
                                    cudaMemcpyHostToDevice, stream_));
        }
        std::vector<Tensor> results;
        for (const TensorSpec& spec : component_.outputs) {
            const nvinfer1::Dims shape = context_->getTensorShape(spec.name.c_str());
            results.emplace_back(spec.type, Shape(shape.d, shape.d + std::max(0, shape.nbDims)));
            bind(spec.name, results.back().bytes());
        }
        require(context_->enqueueV3(stream_), "execute " + component_.name);
        for (std::size_t i = 0; i < results.size(); ++i) {
            void* const place = buffers_[component_.outputs[i].name].of(0);
            require(cudaMemcpyAsync(results[i].data(), place, results[i].bytes(),
                                    cudaMemcpyDeviceToHost, stream_));
        }
        require(cudaStreamSynchronize(stream_));
        return results;
    }

  private:
    void* bind(const std::string& name, std::size_t bytes) {
        void* const place = buffers_[name].of(std::max<std::size_t>(bytes, 1));
        require(context_->setTensorAddress(name.c_str(), place), "take the memory of " + name);
        return place;
    }

    const int device_;
    std::unique_ptr<nvinfer1::IRuntime> runtime_;  // outlives what it made
    std::unique_ptr<nvinfer1::ICudaEngine> engine_;
    std::unique_ptr<nvinfer1::IExecutionContext> context_;
    std::map<std::string, Buffer> buffers_;
    cudaStream_t stream_ = nullptr;
};

}  // namespace

std::string tensorrt_version() {
    const std::int32_t version = getInferLibVersion();  // 101303 is 10.13.3
    return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
           std::to_string(version % 100);
}

std::unique_ptr<Engine> open_tensorrt(const std::string& path, const Component& component,
                                      const Place& place) {
    if (component.files.size() > 1) {
        engine_error(path + " is a plan without weights, which is opened by the Python package " +
                     "alone: export the bundle without strip");
    }
    return std::make_unique<TensorRtEngine>(path, component, place);
}

}  // namespace dtg::host
