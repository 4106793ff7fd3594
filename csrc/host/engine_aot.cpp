// Packages of AOTInductor (.pt2), executed by libtorch: the only file that knows torch.
#include <ATen/Parallel.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/version.h>

#include <cstring>

#include "engine.h"
#include "error.h"

namespace dtg::host {
namespace {

at::ScalarType scalar_type(Type type) {
    switch (type) {
        case Type::kFloat16:
            return at::kHalf;
        case Type::kBFloat16:
            return at::kBFloat16;
        case Type::kInt64:
            return at::kLong;
        default:
            return at::kFloat;
    }
}

class AotEngine : public Engine {
  public:
    AotEngine(const std::string& path, const Component& component, const Place& place)
        : Engine(component),
          device_(place.device + ":" + std::to_string(place.device == "cuda" ? place.device_index : 0)),
          loader_(path, "model", /*run_single_threaded=*/false, /*num_runners=*/1,
                  static_cast<c10::DeviceIndex>(place.device == "cuda" ? place.device_index : -1)) {}

  protected:
    std::vector<Tensor> run(const std::vector<const Tensor*>& inputs) override {
        const c10::InferenceMode guard;
        std::vector<at::Tensor> given;
        for (const Tensor* input : inputs) {
            // Engines do not write to their inputs.
            auto* data = const_cast<std::byte*>(input->data());
            given.push_back(at::from_blob(data, input->shape(), scalar_type(input->type()))
                                .to(device_));
        }
        std::vector<Tensor> results;
        std::size_t index = 0;
        for (const at::Tensor& made : loader_.run(given)) {
            if (index == component_.outputs.size()) break;
            const at::Tensor here = made.cpu().contiguous();
            const TensorSpec& spec = component_.outputs[index++];
            if (here.scalar_type() != scalar_type(spec.type)) {
                engine_error("the output " + spec.name + " is of another type than was recorded");
            }
            Tensor result(spec.type, here.sizes().vec());
            std::memcpy(result.data(), here.const_data_ptr(), result.bytes());
            results.push_back(std::move(result));
        }
        return results;
    }

  private:
    const at::Device device_;
    torch::inductor::AOTIModelPackageLoader loader_;
};

// torch's errors end with a stack of C++ frames, which says nothing to a user.
std::string first_line(const std::exception& error) {
    const std::string text = error.what();
    return text.substr(0, text.find('\n'));
}

}  // namespace

std::string aot_version() { return TORCH_VERSION; }

std::unique_ptr<Engine> open_aot(const std::string& path, const Component& component,
                                 const Place& place) {
    at::set_num_threads(place.threads);
    try {
        return std::make_unique<AotEngine>(path, component, place);
    } catch (const std::exception& error) {
        engine_error(path + " cannot be opened by AOTInductor: " + first_line(error));
    }
}

}  // namespace dtg::host
