// Packages of AOTInductor (.pt2), executed by libtorch: the only file that knows torch.
#include <ATen/Parallel.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/InferenceMode.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/version.h>

#include <algorithm>
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

// torch's errors end with a stack of C++ frames, which says nothing to a user.
[[noreturn]] void fail(const std::string& what, const std::exception& error) {
    const std::string text = error.what();
    const std::string first = text.substr(0, text.find('\n'));
    const bool is_memory = dynamic_cast<const c10::OutOfMemoryError*>(&error) ||
                           first.find("allocate memory") != std::string::npos;
    throw Error(is_memory ? DTG_MEMORY : DTG_ENGINE, what + ": " + first);
}

class AotEngine : public Engine {
  public:
    AotEngine(const std::string& path, const Component& component, const Place& place)
        : Engine(component),
          device_(place.device == "cuda" ? at::kCUDA : at::kCPU, index_of(place)),
          loader_(path, "model", /*run_single_threaded=*/false, /*num_runners=*/1,
                  index_of(place)) {}

  protected:
    std::vector<Tensor> run(const std::vector<const Tensor*>& inputs) override {
        try {
            return computed(inputs);
        } catch (const c10::Error& error) {
            fail(component_.name + " cannot be computed", error);
        }
    }

  private:
    static c10::DeviceIndex index_of(const Place& place) {
        return static_cast<c10::DeviceIndex>(place.device == "cuda" ? place.device_index : -1);
    }

    std::vector<Tensor> computed(const std::vector<const Tensor*>& inputs) {
        const c10::InferenceMode guard;
        std::vector<at::Tensor> given;
        for (const Tensor* input : inputs) {
            // Engines do not write to their inputs.
            auto* data = const_cast<std::byte*>(input->data());
            given.push_back(
                at::from_blob(data, input->shape(), scalar_type(input->type())).to(device_));
        }
        const std::vector<at::Tensor> outputs = loader_.run(given);
        std::vector<Tensor> results;
        for (std::size_t i = 0; i < std::min(outputs.size(), component_.outputs.size()); ++i) {
            const at::Tensor here = outputs[i].cpu().contiguous();
            const TensorSpec& spec = component_.outputs[i];
            if (here.scalar_type() != scalar_type(spec.type)) {
                engine_error("the output " + spec.name + " is of another type than was recorded");
            }
            results.emplace_back(spec.type, here.sizes().vec());
            std::memcpy(results.back().data(), here.const_data_ptr(), results.back().bytes());
        }
        return results;
    }

    const at::Device device_;
    torch::inductor::AOTIModelPackageLoader loader_;
};

}  // namespace

std::string aot_version() { return TORCH_VERSION; }

std::unique_ptr<Engine> open_aot(const std::string& path, const Component& component,
                                 const Place& place) {
    at::set_num_threads(place.threads);
    try {
        return std::make_unique<AotEngine>(path, component, place);
    } catch (const std::exception& error) {
        fail(path + " cannot be opened by AOTInductor", error);
    }
}

}  // namespace dtg::host
