// ONNX graphs, executed by ONNX Runtime through its C interface.
#include <onnxruntime_c_api.h>

#include <cstring>
#include <filesystem>

#include "engine.h"
#include "error.h"

namespace dtg::host {
namespace {

const OrtApi& api() {
    // The oldest version of the interface that has all that is used here serves: what is compiled
    // against a newer header still starts with an older library.
    constexpr std::uint32_t kOldest = 17;
    static const OrtApi* const found = OrtGetApiBase()->GetApi(kOldest);
    if (!found) engine_error("this ONNX Runtime is older than 1.17");
    return *found;
}

void require(OrtStatus* status) {
    if (!status) return;
    const std::string message = api().GetErrorMessage(status);
    api().ReleaseStatus(status);
    engine_error("ONNX Runtime: " + message);
}

template <class T>
using Owned = std::unique_ptr<T, void(ORT_API_CALL*)(T*)>;

// Calls a function of the interface that hands out an object by its last argument.
template <class T, class Create, class... Arguments>
Owned<T> made(void(ORT_API_CALL* release)(T*), Create create, Arguments... arguments) {
    T* object = nullptr;
    require(create(arguments..., &object));
    return {object, release};
}

ONNXTensorElementDataType element_type(Type type) {
    switch (type) {
        case Type::kFloat16:
            return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
        case Type::kBFloat16:
            return ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16;
        case Type::kInt64:
            return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
        default:
            return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    }
}

const OrtEnv* environment() {
    static const auto env =
        made<OrtEnv>(api().ReleaseEnv, api().CreateEnv, ORT_LOGGING_LEVEL_ERROR, "dtg");
    return env.get();
}

Owned<OrtSessionOptions> options_for(const Place& place) {
    auto options = made<OrtSessionOptions>(api().ReleaseSessionOptions, api().CreateSessionOptions);
    require(api().SetIntraOpNumThreads(options.get(), place.threads));
    // Its threads would wait for the next call at full speed.
    require(api().AddSessionConfigEntry(options.get(), "session.intra_op.allow_spinning", "0"));
    if (place.device == "cuda") {
        OrtCUDAProviderOptionsV2* cuda = nullptr;
        require(api().CreateCUDAProviderOptions(&cuda));
        const Owned<OrtCUDAProviderOptionsV2> owned(cuda, api().ReleaseCUDAProviderOptions);
        const std::string index = std::to_string(place.device_index);
        const char *names[] = {"device_id"}, *values[] = {index.c_str()};
        require(api().UpdateCUDAProviderOptions(cuda, names, values, 1));
        require(api().SessionOptionsAppendExecutionProvider_CUDA_V2(options.get(), cuda));
    }
    return options;
}

class OrtEngine : public Engine {
  public:
    OrtEngine(const std::string& path, const Component& component, const Place& place)
        : Engine(component),
          memory_(made<OrtMemoryInfo>(api().ReleaseMemoryInfo, api().CreateCpuMemoryInfo,
                                      OrtDeviceAllocator, OrtMemTypeDefault)),
          session_(made<OrtSession>(api().ReleaseSession, api().CreateSession, environment(),
                                    std::filesystem::path(path).c_str(), options_for(place).get())) {
    }

  protected:
    std::vector<Tensor> run(const std::vector<const Tensor*>& inputs) override {
        std::vector<Owned<OrtValue>> given;
        std::vector<const OrtValue*> values;
        std::vector<const char*> input_names, output_names;
        for (std::size_t i = 0; i < inputs.size(); ++i) {
            const Tensor& input = *inputs[i];
            void* data = const_cast<std::byte*>(input.data());  // it does not write to inputs
            given.push_back(made<OrtValue>(
                api().ReleaseValue, api().CreateTensorWithDataAsOrtValue, memory_.get(), data,
                input.bytes(), input.shape().data(), input.shape().size(),
                element_type(input.type())));
            values.push_back(given.back().get());
            input_names.push_back(component_.inputs[i].name.c_str());
        }
        for (const TensorSpec& spec : component_.outputs) output_names.push_back(spec.name.c_str());
        std::vector<OrtValue*> outputs(output_names.size(), nullptr);
        require(api().Run(session_.get(), nullptr, input_names.data(), values.data(), values.size(),
                          output_names.data(), output_names.size(), outputs.data()));
        std::vector<Owned<OrtValue>> owned;
        for (OrtValue* output : outputs) owned.emplace_back(output, api().ReleaseValue);
        std::vector<Tensor> results;
        for (std::size_t i = 0; i < outputs.size(); ++i) {
            results.push_back(copied(outputs[i], component_.outputs[i]));
        }
        return results;
    }

  private:
    static Tensor copied(OrtValue* value, const TensorSpec& spec) {
        const auto info = made<OrtTensorTypeAndShapeInfo>(api().ReleaseTensorTypeAndShapeInfo,
                                                          api().GetTensorTypeAndShape, value);
        std::size_t axes = 0;
        require(api().GetDimensionsCount(info.get(), &axes));
        Shape shape(axes);
        require(api().GetDimensions(info.get(), shape.data(), axes));
        ONNXTensorElementDataType type;
        require(api().GetTensorElementType(info.get(), &type));
        if (type != element_type(spec.type)) {
            engine_error("the output " + spec.name + " is of another type than was recorded");
        }
        void* data = nullptr;
        require(api().GetTensorMutableData(value, &data));
        Tensor result(spec.type, shape);
        std::memcpy(result.data(), data, result.bytes());
        return result;
    }

    Owned<OrtMemoryInfo> memory_;
    Owned<OrtSession> session_;
};

}  // namespace

std::string ort_version() { return OrtGetApiBase()->GetVersionString(); }

std::unique_ptr<Engine> open_ort(const std::string& path, const Component& component,
                                 const Place& place) {
    return std::make_unique<OrtEngine>(path, component, place);
}

}  // namespace dtg::host
